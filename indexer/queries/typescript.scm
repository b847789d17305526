(function_signature name: (identifier) @name) @function
(class_declaration name: (type_identifier) @name) @class
(abstract_class_declaration name: (type_identifier) @name) @class
(interface_declaration name: (type_identifier) @name) @class
(enum_declaration name: (identifier) @name) @class
(internal_module name: (_) @name) @class
(module name: (_) @name) @class
(export_statement declaration: (_ name: (identifier) @name body: (statement_block) @body)) @function
(export_statement declaration: (_ name: [(type_identifier) (identifier)] @name
  body: [(class_body) (interface_body) (enum_body)] @body)) @class
(type_alias_declaration name: (type_identifier) @symbol)
(public_field_definition name: (property_identifier) @symbol)
(property_signature name: (property_identifier) @symbol)
(method_signature name: (property_identifier) @symbol)
