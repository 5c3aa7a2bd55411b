import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { CommandError, commandText } from "./exec.js";

describe("what is told of a command", () => {
  it("is all but the options of a mount", () => {
    for (const [args, text] of [
      [["-t", "nfs", "-o", "password=hunter2", "--", "a:/b", "/c"], "mount -t nfs -o … -- a:/b /c"],
      [["-opassword=hunter2", "/a", "/b"], "mount -o… /a /b"],
      [["--options", "hunter2", "/a", "/b"], "mount --options … /a /b"],
      [["--options=hunter2", "/a", "/b"], "mount --options=… /a /b"],
      [["--", "-o", "/b"], "mount -- -o /b"],
    ] as const)
      assert.equal(commandText("mount", args), text);
    assert.equal(commandText("/sbin/mount.nfs", ["-o", "x", "a", "b"]), "/sbin/mount.nfs -o … a b");
    assert.equal(commandText("lsblk", ["-o", "NAME"]), "lsblk -o NAME");
  });

  it("has no option that the command itself told", () => {
    const args = ["-o", "noexec,password=hunter2,odd_hunter3", "--", "/a", "/b"];
    const stderr =
      "mount: /b: unknown option 'password=hunter2'\nbad value \"hunter2\"\nodd_hunter3?\nnoexec failed";
    const error = new CommandError("mount", args, { exitCode: 32, stderr }, undefined);
    const told = JSON.stringify([error.message, error.stderr, error.data]);
    assert.doesNotMatch(told, /hunter/);
    assert.match(told, /noexec failed/);
  });
});
