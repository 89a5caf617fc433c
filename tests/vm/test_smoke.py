def test_a(sandbox):
    print(sandbox.value, sandbox.sh("id; hostname; systemctl is-system-running --wait").out)
    print(sandbox.sh("cat /proc/uptime").out, sandbox.host.qemu_pid(sandbox.name), sandbox.host.supervisor_pid(sandbox.name))
def test_b(user_sandbox):
    print(user_sandbox.value, user_sandbox.sh("id; hostname; ls -la workspace").out)
    print(user_sandbox.host.qemu_pid(user_sandbox.name), user_sandbox.host.supervisor_pid(user_sandbox.name))
