(function_declaration name: (identifier) @name) @function
(class_declaration name: (identifier) @name) @class
(object_declaration name: (identifier) @name) @class
(import) @import
(package_header) @import
(type_alias type: (identifier) @symbol)
(source_file (property_declaration (variable_declaration (identifier) @symbol)))
(class_body (property_declaration (variable_declaration (identifier) @symbol)))
