(method name: (_) @name) @function
(singleton_method name: (_) @name) @function
(class name: (_) @name) @class
(module name: (_) @name) @class
(program (call method: (identifier) @_call (#match? @_call "^(require|require_relative|load|autoload)$")) @import)
(assignment left: (constant) @symbol)
