-- Sandboxes in Neovim: copy this file to ~/.config/nvim/plugin/sandbox.lua. Neovim 0.7 or newer.
--
--   :SandboxStart [NETWORK]   start the sandbox of the working directory: open, proxy or offline
--   :SandboxStop              stop it; what is only in the machine is gone
--   :SandboxTerminal          a shell in it, in its workspace
--   :SandboxConsole           its serial console
--   :SandboxStatus            how it is
--   %{v:lua.SandboxStatusline()}   the same for the status line
--
-- It starts `sandbox-rpc --stdio` when it is first needed; vim.g.sandbox_rpc names another program.
-- Sandboxes outlive Neovim.
local M = { sandboxes = {} }
local rpc, waiting
local tokens = 0

local function tell(text, level)
  vim.notify("sandbox: " .. text, level or vim.log.levels.INFO)
end

local function here()
  return vim.loop.fs_realpath(vim.fn.getcwd())
end

local dispatchers = {
  notification = function(method, params)
    if method == "sandbox/didChange" then
      local known = M.sandboxes[params.workspace]
      if not known or (known.revision or 0) < (params.revision or 0) then
        M.sandboxes[params.workspace] = params
      end
      vim.schedule(function()
        vim.cmd("redrawstatus!")
      end)
    elseif method == "$/progress" and params.value.message then
      vim.schedule(function()
        vim.api.nvim_echo({ { "sandbox: " .. params.value.message } }, false, {})
      end)
    end
  end,
  server_request = function()
    return vim.NIL
  end,
  on_error = function() end,
  on_exit = function()
    rpc, waiting = nil, nil
  end,
}

-- Calls `ready` with a client that has been introduced.
local function connect(ready)
  if rpc and not waiting then
    return ready()
  elseif rpc then
    return table.insert(waiting, ready)
  end
  local command = vim.g.sandbox_rpc or "sandbox-rpc"
  if vim.fn.executable(command) == 0 then
    return tell(command .. " is not on PATH; set vim.g.sandbox_rpc", vim.log.levels.ERROR)
  end
  if vim.fn.has("nvim-0.10") == 1 then
    rpc = vim.lsp.rpc.start({ command, "--stdio" }, dispatchers)
  else
    rpc = vim.lsp.rpc.start(command, { "--stdio" }, dispatchers)
  end
  waiting = { ready }
  local version = { experimental = { sandbox = { protocolVersion = "1.0" } } }
  local params = { processId = vim.fn.getpid(), capabilities = version, rootUri = vim.NIL }
  rpc.request("initialize", params, function(error)
    if error then
      return tell(error.message, vim.log.levels.ERROR)
    end
    rpc.notify("initialized", vim.empty_dict())
    local all = waiting
    waiting = nil
    for _, one in ipairs(all) do
      one()
    end
  end)
end

-- Asks; `done` gets the result. Errors are shown with what to do about them.
local function ask(method, params, done)
  connect(function()
    rpc.request(method, params, vim.schedule_wrap(function(error, result)
      if error then
        local hint = type(error.data) == "table" and error.data.hint
        return tell(error.message .. (hint and " " .. hint or ""), vim.log.levels.ERROR)
      end
      done(result)
    end))
  end)
end

local function token()
  tokens = tokens + 1
  return "nvim-" .. tokens
end

-- Hands the running sandbox of the working directory to `use`.
local function running(use)
  ask("sandbox/status", { workspace = here() }, function(sandbox)
    if sandbox.state ~= "running" then
      return tell(sandbox.name .. " is " .. sandbox.state)
    end
    use(sandbox)
  end)
end

local function terminal(argv)
  vim.cmd("botright new")
  vim.fn.termopen(argv)
  vim.cmd("startinsert")
end

function M.start(network)
  local params = { workspace = here(), workDoneToken = token() }
  if network and network ~= "" then
    params.network = network
  end
  ask("sandbox/start", params, function(sandbox)
    M.sandboxes[sandbox.workspace] = sandbox
    tell(sandbox.name .. " is running; :SandboxTerminal opens a shell")
  end)
end

function M.stop()
  ask("sandbox/stop", { workspace = here(), workDoneToken = token() }, function(sandbox)
    M.sandboxes[sandbox.workspace] = nil
    tell(sandbox.name .. " is stopped")
  end)
end

function M.terminal()
  running(function(sandbox)
    local enter = 'cd ~/workspace && exec "${SHELL:-/bin/bash}" -l'
    terminal({ "ssh", "-F", sandbox.ssh.configFile, "-t", sandbox.ssh.alias, "--", enter })
  end)
end

function M.console()
  running(function(sandbox)
    terminal({ vim.g.sandbox or "sandbox", "console", sandbox.name })
  end)
end

function M.status()
  ask("sandbox/status", { workspace = here() }, function(sandbox)
    local network = sandbox.network and ", network " .. sandbox.network or ""
    tell(sandbox.name .. " is " .. sandbox.state .. network)
  end)
end

function _G.SandboxStatusline()
  local sandbox = M.sandboxes[here()]
  return sandbox and sandbox.state ~= "stopped" and "vm:" .. sandbox.state or ""
end

local command = vim.api.nvim_create_user_command
local function networks()
  return { "open", "proxy", "offline" }
end
command("SandboxStart", function(call)
  M.start(call.args)
end, { nargs = "?", complete = networks, desc = "Start the sandbox of this folder" })
command("SandboxStop", M.stop, { desc = "Stop the sandbox of this folder" })
command("SandboxTerminal", M.terminal, { desc = "Open a shell in the sandbox" })
command("SandboxConsole", M.console, { desc = "Attach to the sandbox's serial console" })
command("SandboxStatus", M.status, { desc = "Show how the sandbox is" })

vim.api.nvim_create_autocmd("VimLeavePre", {
  callback = function()
    if rpc then
      rpc.notify("exit")
    end
  end,
})

return M
