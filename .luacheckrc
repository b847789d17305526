-- The Neovim client runs on LuaJIT, with the one global that Neovim adds.
std = "luajit"
globals = { "vim" }
max_line_length = 120
