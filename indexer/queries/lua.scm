(function_declaration name: (_) @name) @function
(assignment_statement (variable_list name: (_) @name) (expression_list value: (function_definition body: (_) @body))) @function
(chunk (variable_declaration (assignment_statement (variable_list name: (identifier) @symbol))))
