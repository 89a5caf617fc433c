// Runs in the real extension host, beside the extension; see test_host.py.
const assert = require("node:assert");
const vscode = require("vscode");

exports.run = async () => {
  const extension = vscode.extensions.getExtension("sandbox-rpc.kvm-sandbox");
  assert.ok(extension, "the extension is not there");
  await extension.activate();
  const manifest = extension.packageJSON;

  const known = new Set(await vscode.commands.getCommands(true));
  for (const { command } of manifest.contributes.commands) {
    assert.ok(known.has(command), `${command} is contributed and not registered`);
  }

  // A folder cannot say how its sandbox is made: the editor itself refuses.
  const section = vscode.workspace.getConfiguration("kvmSandbox");
  for (const block of manifest.contributes.configuration) {
    for (const [name, property] of Object.entries(block.properties)) {
      const key = name.slice("kvmSandbox.".length);
      assert.equal(property.scope, "application", name);
      await assert.rejects(
        Promise.resolve(section.update(key, property.default, vscode.ConfigurationTarget.Workspace)),
        /workspace/i,
        `${name} can be set by a folder`,
      );
      assert.deepEqual(section.inspect(key).defaultValue, property.default, name);
    }
  }
  // The folder's .vscode/settings.json tries all the same.
  assert.equal(section.get("memory"), 2048);
};
