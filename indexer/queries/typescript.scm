(function_declaration name: (identifier) @name) @function
(generator_function_declaration name: (identifier) @name) @function
(function_signature name: (identifier) @name) @function
(method_definition name: (_) @name) @function
(class_declaration name: (type_identifier) @name) @class
(abstract_class_declaration name: (type_identifier) @name) @class
(interface_declaration name: (type_identifier) @name) @class
(enum_declaration name: (identifier) @name) @class
(internal_module name: (_) @name) @class
(module name: (_) @name) @class
(export_statement declaration: (_ name: (identifier) @name body: (statement_block) @body)) @function
(export_statement declaration: (_ name: [(type_identifier) (identifier)] @name
  body: [(class_body) (interface_body) (enum_body)] @body)) @class
(lexical_declaration (variable_declarator name: (identifier) @name
  value: [(arrow_function body: (_) @body) (function_expression body: (_) @body)])) @function
(export_statement (lexical_declaration (variable_declarator name: (identifier) @name
  value: [(arrow_function body: (_) @body) (function_expression body: (_) @body)]))) @function
(expression_statement (assignment_expression left: (member_expression property: (property_identifier) @name)
  right: [(arrow_function body: (_) @body) (function_expression body: (_) @body)])) @function
(pair key: (property_identifier) @name value: [(arrow_function body: (_) @body) (function_expression body: (_) @body)]) @function
(import_statement) @import
(type_alias_declaration name: (type_identifier) @symbol)
(program (lexical_declaration (variable_declarator name: (identifier) @symbol)))
(export_statement (lexical_declaration (variable_declarator name: (identifier) @symbol)))
(public_field_definition name: (property_identifier) @symbol)
(property_signature name: (property_identifier) @symbol)
(method_signature name: (property_identifier) @symbol)
