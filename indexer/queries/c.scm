(function_definition declarator: (function_declarator declarator: (identifier) @name)) @function
(function_definition declarator: (_ declarator: (function_declarator declarator: (identifier) @name)) body: (_) @body) @function
(struct_specifier name: (type_identifier) @name body: (_) @body) @class
(union_specifier name: (type_identifier) @name body: (_) @body) @class
(enum_specifier name: (type_identifier) @name body: (_) @body) @class
(type_definition type: (_ body: (_) @body) declarator: (type_identifier) @name) @class
(preproc_include) @import
(preproc_def name: (identifier) @symbol)
(preproc_function_def name: (identifier) @symbol)
(type_definition declarator: (type_identifier) @symbol)
(translation_unit (declaration declarator: (function_declarator declarator: (identifier) @symbol)))
(translation_unit (declaration declarator: (init_declarator declarator: (identifier) @symbol)))
(enumerator name: (identifier) @symbol)
(field_declaration declarator: (field_identifier) @symbol)
