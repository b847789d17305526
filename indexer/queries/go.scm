(function_declaration name: (identifier) @name) @function
(method_declaration name: (field_identifier) @name) @function
(type_declaration (type_spec name: (type_identifier) @name type: (_) @body)) @class
(import_declaration) @import
(package_clause) @import
(const_spec name: (identifier) @symbol)
(source_file (var_declaration (var_spec name: (identifier) @symbol)))
(field_declaration name: (field_identifier) @symbol)
