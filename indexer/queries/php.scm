(function_definition name: (name) @name) @function
(method_declaration name: (name) @name) @function
(class_declaration name: (name) @name) @class
(interface_declaration name: (name) @name) @class
(trait_declaration name: (name) @name) @class
(enum_declaration name: (name) @name) @class
(namespace_use_declaration) @import
(namespace_definition !body) @import
(const_element (name) @symbol)
(enum_case name: (name) @symbol)
(property_element name: (variable_name (name) @symbol))
