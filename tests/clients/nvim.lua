-- Neovim's own client of the base protocol, vim.lsp.rpc, as a client of the service.
--
-- SERVICE=... WORKSPACE=... OTHER=... GO=... nvim --headless -u NONE -c 'luafile nvim.lua' -c cquit
--
-- Starts the sandbox of OTHER and cancels that, starts that of WORKSPACE, goes through everything,
-- waits for the file GO and stops it. One JSON line for each step; exit status 0 when all went well.
local LIMIT_MS = 300000
local env = vim.env
local heard = { console = "", output = "", progress = {}, states = {} }
local status

local function say(step, fields)
  io.stdout:write(vim.fn.json_encode(vim.tbl_extend("error", { step = step }, fields)) .. "\n")
  io.stdout:flush()
end

local function decoded(data)
  return vim.fn.system("base64 -d", data)
end

local dispatchers = {
  notification = function(method, params)
    if method == "$/progress" then
      table.insert(heard.progress, params.value)
    elseif method == "console/output" then
      heard.console = heard.console .. decoded(params.data)
    elseif method == "console/closed" then
      heard.closed = params.reason
    elseif method == "sandbox/execOutput" then
      heard.output = heard.output .. decoded(params.data)
    elseif method == "sandbox/didChange" then
      local of = params.workspace == env.OTHER and "other" or "states"
      heard[of] = heard[of] or {}
      table.insert(heard[of], params.state)
    end
  end,
  server_request = function()
    return vim.NIL
  end,
  on_error = function(code, error)
    say("error", { code = code, error = tostring(error) })
  end,
  on_exit = function(code)
    status = code
  end,
}

local rpc
if vim.fn.has("nvim-0.10") == 1 then
  rpc = vim.lsp.rpc.start({ env.SERVICE, "--stdio" }, dispatchers)
else
  rpc = vim.lsp.rpc.start(env.SERVICE, { "--stdio" }, dispatchers)
end

local function wait(question, what)
  assert(vim.wait(LIMIT_MS, question, 10), what .. " did not come")
end

local function ask(method, params)
  local answer = {}
  local ok, id = rpc.request(method, params, function(error, result)
    answer.error, answer.result, answer.came = error, result, true
  end)
  assert(ok, method)
  answer.id = id
  return answer
end

local function call(method, params)
  local answer = ask(method, params)
  wait(function()
    return answer.came
  end, "the answer to " .. method)
  assert(not answer.error, method .. ": " .. vim.inspect(answer.error))
  return answer.result
end

local function kinds()
  local found = {}
  for _, value in ipairs(heard.progress) do
    table.insert(found, value.kind)
  end
  return found
end

local server = call("initialize", { processId = vim.fn.getpid(), capabilities = {}, rootUri = vim.NIL })
-- Lua's empty table: it goes out as an empty array.
rpc.notify("initialized", {})
say("initialized", { server = server.serverInfo.name })

-- Neovim does not call back for a request that was cancelled; the news tell.
local given_up = ask("sandbox/start", { workspace = env.OTHER, warm = "never", workDoneToken = "other" })
wait(function()
  local last = heard.progress[#heard.progress]
  return last and last.phase == "boot"
end, "the boot of the other")
rpc.notify("$/cancelRequest", { id = given_up.id })
wait(function()
  return heard.other and heard.other[#heard.other] == "stopped"
end, "the end of the other")
say("cancelled", { states = heard.other })

heard.progress = {}
local sandbox = call("sandbox/start", { workspace = env.WORKSPACE, workDoneToken = "start" })
say("started", { name = sandbox.name, state = sandbox.state, kinds = kinds() })

call("console/attach", { name = sandbox.name, stream = "nvim", offset = 0 })
-- What is typed before the shell has its prompt may be thrown away.
wait(function()
  return heard.console:find("dev@sandbox-editors", 1, true)
end, "the prompt")
local typed = vim.trim(vim.fn.system("base64", "echo nvim-$((20 + 3))\r"))
call("console/write", { stream = "nvim", data = typed })
wait(function()
  return heard.console:find("nvim-23", 1, true)
end, "the answer on the console")
call("console/detach", { stream = "nvim" })
say("console", { closed = heard.closed })

local result = call("sandbox/exec", {
  name = sandbox.name,
  token = "run",
  argv = { "sh", "-c", 'echo "$0"; exit 3', "it's" },
})
say("exec", { exitCode = result.exitCode, output = heard.output })

wait(function()
  return vim.loop.fs_stat(env.GO)
end, "leave to stop")
call("sandbox/stop", { name = sandbox.name, workDoneToken = "stop" })
wait(function()
  return heard.states[#heard.states] == "stopped"
end, "the news of the stop")
say("stopped", { states = heard.states })

call("shutdown", vim.NIL)
rpc.notify("exit")
wait(function()
  return status
end, "the end of the service")
say("ended", { status = status })
vim.cmd("qall!")
