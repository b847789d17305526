(method_declaration name: (identifier) @name) @function
(constructor_declaration name: (identifier) @name) @function
(class_declaration name: (identifier) @name) @class
(interface_declaration name: (identifier) @name) @class
(enum_declaration name: (identifier) @name) @class
(record_declaration name: (identifier) @name) @class
(annotation_type_declaration name: (identifier) @name) @class
(import_declaration) @import
(package_declaration) @import
(field_declaration declarator: (variable_declarator name: (identifier) @symbol))
(enum_constant name: (identifier) @symbol)
