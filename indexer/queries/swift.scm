(function_declaration name: (simple_identifier) @name body: (_) @body) @function
(init_declaration "init" @name body: (_) @body) @function
(class_declaration name: (_) @name body: (_) @body) @class
(protocol_declaration name: (type_identifier) @name body: (_) @body) @class
(import_declaration) @import
(protocol_function_declaration name: (simple_identifier) @symbol)
(class_body (property_declaration name: (pattern bound_identifier: (simple_identifier) @symbol)))
(source_file (property_declaration name: (pattern bound_identifier: (simple_identifier) @symbol)))
(enum_entry name: (simple_identifier) @symbol)
(typealias_declaration name: (type_identifier) @symbol)
