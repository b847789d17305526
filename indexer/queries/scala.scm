(function_definition name: (_) @name) @function
(class_definition name: (identifier) @name) @class
(object_definition name: (identifier) @name) @class
(trait_definition name: (identifier) @name) @class
(enum_definition name: (identifier) @name) @class
(import_declaration) @import
(package_clause !body) @import
(function_declaration name: (_) @symbol)
(type_definition name: (type_identifier) @symbol)
(template_body (val_definition pattern: (identifier) @symbol))
