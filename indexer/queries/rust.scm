(function_item name: (identifier) @name) @function
(function_signature_item name: (identifier) @name) @function
(macro_definition name: (identifier) @name) @function
(struct_item name: (type_identifier) @name) @class
(enum_item name: (type_identifier) @name) @class
(union_item name: (type_identifier) @name) @class
(trait_item name: (type_identifier) @name) @class
(impl_item type: (_) @name) @class
(mod_item name: (identifier) @name body: (_) @body) @class
(use_declaration) @import
(extern_crate_declaration) @import
(const_item name: (identifier) @symbol)
(static_item name: (identifier) @symbol)
(type_item name: (type_identifier) @symbol)
(field_declaration name: (field_identifier) @symbol)
(enum_variant name: (identifier) @symbol)
