(class_declaration name: (identifier) @name) @class
(export_statement (function_declaration name: (identifier) @name body: (_) @body)) @function
(export_statement (class_declaration name: (identifier) @name body: (_) @body)) @class
(variable_declaration (variable_declarator name: (identifier) @name
  value: [(arrow_function body: (_) @body) (function_expression body: (_) @body)])) @function
(program (variable_declaration (variable_declarator name: (identifier) @symbol)))
(field_definition property: (property_identifier) @symbol)
