(function_definition declarator: (function_declarator declarator: (_) @name) body: (_) @body) @function
(function_definition declarator: (_ (function_declarator declarator: (_) @name)) body: (_) @body) @function
(template_declaration (function_definition declarator: (function_declarator declarator: (_) @name) body: (_) @body)) @function
(class_specifier name: (_) @name body: (_) @body) @class
(struct_specifier name: (_) @name body: (_) @body) @class
(union_specifier name: (_) @name body: (_) @body) @class
(enum_specifier name: (_) @name body: (_) @body) @class
(template_declaration (class_specifier name: (_) @name body: (_) @body)) @class
(template_declaration (struct_specifier name: (_) @name body: (_) @body)) @class
(namespace_definition name: (_) @name body: (_) @body) @class
(preproc_include) @import
(using_declaration) @import
(preproc_def name: (identifier) @symbol)
(preproc_function_def name: (identifier) @symbol)
(type_definition declarator: (type_identifier) @symbol)
(alias_declaration name: (type_identifier) @symbol)
(declaration declarator: (function_declarator declarator: (identifier) @symbol))
(field_declaration declarator: (field_identifier) @symbol)
(field_declaration declarator: (function_declarator declarator: (field_identifier) @symbol))
(enumerator name: (identifier) @symbol)
