if vim.g.loaded_repoformer then
  return
end
vim.g.loaded_repoformer = true

vim.api.nvim_create_user_command('Repoformer', function(call)
  require('repoformer.command').run(call.fargs)
end, {
  nargs = '*',
  desc = 'repoformer: status, why, pause, resume, policy, log, doctor, install, restart',
  complete = function(lead, line)
    return require('repoformer.command').complete(lead, line)
  end,
})
