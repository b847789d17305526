(function_definition name: (identifier) @name) @function
(decorated_definition definition: (function_definition name: (identifier) @name body: (_) @body)) @function
(class_definition name: (identifier) @name) @class
(decorated_definition definition: (class_definition name: (identifier) @name body: (_) @body)) @class
(module [(import_statement) (import_from_statement) (future_import_statement)] @import)
(module (expression_statement (assignment left: (identifier) @symbol)))
(class_definition body: (block (expression_statement (assignment left: (identifier) @symbol))))
