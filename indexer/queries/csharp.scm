(method_declaration name: (identifier) @name) @function
(constructor_declaration name: (identifier) @name) @function
(local_function_statement name: (identifier) @name) @function
(class_declaration name: (identifier) @name) @class
(interface_declaration name: (identifier) @name) @class
(struct_declaration name: (identifier) @name) @class
(record_declaration name: (identifier) @name) @class
(enum_declaration name: (identifier) @name) @class
(namespace_declaration name: (_) @name) @class
(using_directive) @import
(property_declaration name: (identifier) @symbol)
(field_declaration (variable_declaration (variable_declarator name: (identifier) @symbol)))
(enum_member_declaration name: (identifier) @symbol)
(delegate_declaration name: (identifier) @symbol)
