/** What bad input gets: an answer as the protocol says, and nothing changed. */
import assert from "node:assert/strict";
import { chmod, chown, mkdir, rm, stat, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, describe, it } from "node:test";
import { runCommand } from "@libstorage/client/host";
import { makeFolder, startServer } from "../../client/fixture.js";
import type { TestServer } from "../../client/fixture.js";
import { cannotMount } from "../../client/host-fixture.js";
import { mountsBelow, openPlugin, unmountBelow } from "./plugin-fixture.js";
import type { TestPlugin } from "./plugin-fixture.js";

describe("what the Docker plugin says to bad input", { skip: cannotMount() }, () => {
  let server: TestServer;
  let folder: string;
  let plugin: TestPlugin;

  before(async () => {
    server = await startServer();
  });
  after(() => server.close());
  beforeEach(async () => {
    folder = await makeFolder();
    plugin = await openPlugin({ host: server.host, folder });
  });
  afterEach(async () => {
    await plugin.close();
    await unmountBelow(folder);
    await rm(folder, { recursive: true, force: true });
    const { service } = server.app;
    for (const volumeID of Object.keys(await volumes()))
      await service.volumeRemove({ service: "vfs", volumeID, force: true }, undefined, {});
  });

  const volumes = () =>
    server.app.service.volumesByService({ service: "vfs", attachments: 1 }, undefined, {});

  it("bodies that are none", async () => {
    const deep = `${"[".repeat(200)}${"]".repeat(200)}`;
    for (const [raw, status] of [
      ["{bad", 400],
      ['{"Name": ', 400],
      [deep, 400],
      [`{"Name":"v","Opts":{"size":"${"9".repeat(2_000_000)}"}}`, 413],
      ["[]", 500],
      ['"text"', 500],
      ['{"Name":5}', 500],
      ['{"Name":null}', 500],
      ['{"Name":"v","Opts":[]}', 500],
      ['{"Name":"v","Opts":{"size":5}}', 500],
      ['{"Name":"v","Opts":{"a":{"b":"c"}}}', 500],
      ['{"Name":"v","ID":7}', 500],
      ["", 500],
    ] as const) {
      const answer = await plugin.call("Create", undefined, { raw });
      assert.equal(answer.status, status, `${raw.slice(0, 60)}: ${answer.text}`);
      if (status === 500) assert.equal(typeof answer.body["Err"], "string");
    }
    assert.equal((await plugin.call("Nope")).status, 404);
    assert.equal((await plugin.call("Plugin.Nope")).status, 404);
    assert.equal((await plugin.call("..%2f..%2fetc.passwd")).status, 404);
    assert.deepEqual(await volumes(), {});
  });

  it("names that are none", async () => {
    for (const Name of ["", "a\0b", "a\nb", "..", "../../etc", "a/../b", "x".repeat(256), "\ud800"])
      assert.match(
        await plugin.err("Create", { Name }),
        /missing volume name|cannot be a volume's name|control characters/,
        JSON.stringify(Name),
      );
    for (const operation of ["Mount", "Unmount", "Get", "Remove"])
      for (const Name of ["", "nope", "..", "../../etc/passwd", "x".repeat(1024), "x".repeat(1025)])
        assert.match(
          await plugin.err(operation, { Name, ID: "c" }),
          /missing|not found|at most|cannot be/,
          `${operation} ${Name.slice(0, 30)}`,
        );
    assert.deepEqual(await volumes(), {});
    assert.deepEqual(await mountsBelow(folder), []);
  });

  it("options that are none", async () => {
    for (const [Opts, text] of [
      [{ size: "0" }, /size must be a size/],
      [{ size: "-1" }, /size must be a size/],
      [{ size: "abc" }, /size must be a size/],
      [{ size: "10X" }, /size must be a size/],
      [{ size: "1e30" }, /size must be a size/],
      [{ size: "99999999999" }, /size must be/],
      [{ size: "" }, /size must be a size/],
      [{ iops: "-1" }, /iops must be a whole number/],
      [{ iops: "1.5" }, /iops must be a whole number/],
      [{ encrypted: "perhaps" }, /encrypted must be true or false/],
      [{ share: "2" }, /share must be true or false/],
      [{ fstype: "../x" }, /fstype cannot be/],
      [{ mountoptions: "ro -t x" }, /are no mount options/],
      [{ o: "ro;reboot" }, /are no mount options/],
      [{ custom: "x" }, /"custom" is not known; there are size, type/],
      [{ "opt.": "x" }, /"opt\." is not known/],
      [{ constructor: "x" }, /"constructor" is not known/],
      [{ from: "a", fromSnapshot: "b" }, /cannot stand together/],
      [{ from: "" }, /from must name something/],
      [{ from: "nope" }, /nope not found/],
      [{ fromSnapshot: "nope" }, /nope not found/],
      [{ adopt: "nope" }, /nope not found/],
      [{ resize: "nope" }, /needs size=/],
      [{ resize: "nope", size: "2" }, /nope not found/],
      [{ snapshot: "nope" }, /nope not found/],
      [{ snapshot: "nope", type: "gold" }, /type cannot be chosen/],
      [{ from: "nope", type: "gold" }, /type cannot be chosen/],
    ] as const)
      assert.match(await plugin.err("Create", { Name: "v", Opts }), text, JSON.stringify(Opts));
    assert.deepEqual(await volumes(), {});
  });

  it("sizes below what is there", async () => {
    await plugin.ok("Create", { Name: "v", Opts: { size: "3" } });
    assert.match(
      await plugin.err("Create", { Name: "w", Opts: { from: "v", size: "2" } }),
      /needs at least its 3 GiB/,
    );
    assert.match(
      await plugin.err("Create", { Name: "w", Opts: { resize: "v", size: "2" } }),
      /cannot shrink/,
    );
    assert.deepEqual(
      Object.values(await volumes()).map(({ name, size }) => [name, size]),
      [["v", 3]],
    );
    const { Volumes } = (await plugin.ok("List")) as { Volumes: unknown[] };
    assert.equal(Volumes.length, 1);
  });

  it("names that are taken by something else", async () => {
    await plugin.ok("Create", { Name: "v" });
    await plugin.ok("Create", { Name: "other" });
    await plugin.ok("Create", { Name: "snap", Opts: { snapshot: "v" } });
    await plugin.ok("Create", { Name: "snap", Opts: { snapshot: "v" } });
    await plugin.ok("Create", { Name: "snap" });
    for (const [Name, Opts, text] of [
      ["other", { adopt: "v" }, /is the name of volume/],
      ["other", { snapshot: "v" }, /is the name of volume/],
      ["v", { snapshot: "v" }, /is the volume itself/],
      ["snap", { adopt: "v" }, /stands for the snapshot/],
      ["snap", { size: "3" }, /stands for the snapshot .* no options/],
    ] as const)
      assert.match(await plugin.err("Create", { Name, Opts }), text);
    assert.match(
      await plugin.err("Mount", { Name: "snap", ID: "c" }),
      /is a snapshot .* fromSnapshot=/,
    );
    await plugin.ok("Remove", { Name: "snap" });
    const { service } = server.app;
    assert.deepEqual(await service.snapshotsByService({ service: "vfs" }, undefined, {}), {});
  });

  it("mount points that are taken: a file, a link, a mount of somebody else", async () => {
    const places = join(folder, "var/lib/volumes");
    await mkdir(places, { recursive: true });
    await writeFile(join(places, "file"), "");
    await symlink("/etc", join(places, "link"));
    await mkdir(join(places, "mounted"));
    await runCommand("mount", ["--bind", "/etc", join(places, "mounted")], {
      signal: AbortSignal.timeout(5_000),
    });
    for (const [Name, text] of [
      ["file", /file is not free: there is a file/],
      ["link", /there is a symbolic link to \/etc/],
      ["mounted", /there is a mount of .*\/etc/],
    ] as const) {
      await plugin.ok("Create", { Name });
      assert.match(await plugin.err("Mount", { Name, ID: "c" }), text);
      assert.deepEqual(await plugin.ok("Path", { Name }), { Mountpoint: "" });
    }
    for (const { attachments = [] } of Object.values(await volumes()))
      assert.deepEqual(attachments, []);
    assert.equal((await mountsBelow(folder)).length, 1, "what was there is there");
  });

  it("mounts what stands there already as it is", async () => {
    await plugin.ok("Create", { Name: "v" });
    const first = await plugin.ok("Mount", { Name: "v", ID: "c" });
    assert.deepEqual(await plugin.ok("Mount", { Name: "v", ID: "c" }), first);
    assert.equal((await mountsBelow(folder)).length, 1);
    await plugin.ok("Unmount", { Name: "v", ID: "c" });
  });

  it("says when somebody has unmounted a volume by hand, and mounts it again", async () => {
    await plugin.ok("Create", { Name: "v" });
    await plugin.ok("Mount", { Name: "v", ID: "c" });
    const [at = ""] = await mountsBelow(folder);
    await runCommand("umount", [at], { signal: AbortSignal.timeout(5_000) });
    assert.deepEqual(await plugin.ok("Path", { Name: "v" }), { Mountpoint: "" });
    const { Volume } = (await plugin.ok("Get", { Name: "v" })) as {
      Volume: { Status: Record<string, unknown> };
    };
    assert.match(String(Volume.Status["health"]), /should be mounted at .* and is not/);
    await plugin.ok("Mount", { Name: "v", ID: "c" });
    await plugin.ok("Unmount", { Name: "v", ID: "c" });
    assert.deepEqual(await mountsBelow(folder), []);
  });

  it("names with strange characters stay below the folder of volumes", async () => {
    for (const Name of ["a/b", "a b", "é*?", ".hidden", "-rf"]) {
      await plugin.ok("Create", { Name });
      const { Mountpoint } = await plugin.ok("Mount", { Name, ID: "c" });
      const at = String(Mountpoint);
      assert.equal(join(at, "../.."), join(folder, "var/lib/volumes"), at);
      await plugin.ok("Unmount", { Name, ID: "c" });
      await plugin.ok("Remove", { Name });
    }
  });
});

describe("the Docker plugin's socket", () => {
  let folder: string;
  beforeEach(async () => {
    folder = await makeFolder();
    await mkdir(join(folder, "plugins"));
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  const socket = (): string => join(folder, "plugins/libstorage.sock");
  const open = (): Promise<TestPlugin> =>
    openPlugin({ host: `unix://${folder}/none.sock`, folder });

  it("is not opened in place of a file, or beside another process that answers", async () => {
    await writeFile(socket(), "precious");
    await assert.rejects(open(), /there is something that is no socket/);
    await rm(socket());
    const other = createServer().listen(socket());
    await new Promise((resolve) => other.once("listening", resolve));
    await assert.rejects(open(), /another process answers there/);
    await new Promise((resolve) => other.close(resolve));
  });

  it("takes the place of one that a dead plugin left", async () => {
    const left = await runCommand(
      process.execPath,
      [
        "-e",
        `require("net").createServer().listen(${JSON.stringify(socket())}, () => process.kill(process.pid, "SIGKILL"))`,
      ],
      { signal: AbortSignal.timeout(10_000) },
    ).catch(() => "killed");
    assert.equal(left, "killed");
    assert.ok((await stat(socket())).isSocket());
    const plugin = await open();
    assert.equal((await plugin.call("Plugin.Activate")).status, 200);
    await plugin.close();
  });

  const skip = process.geteuid?.() === 0 ? false : "only root can give files away";
  it("is not opened where others may write, or in place of another user's", { skip }, async () => {
    await chmod(join(folder, "plugins"), 0o777);
    await assert.rejects(open(), /others may write in its folder/);
    await chmod(join(folder, "plugins"), 0o755);
    await chown(join(folder, "plugins"), 65534, 65534);
    await assert.rejects(open(), /belongs to the user 65534/);
    await chown(join(folder, "plugins"), 0, 0);
    const other = createServer().listen(socket());
    await new Promise((resolve) => other.once("listening", resolve));
    await chown(socket(), 65534, 65534);
    await assert.rejects(open(), /a socket of the user 65534/);
    await new Promise((resolve) => other.close(resolve));
  });

  it("has mode 0600 whatever the umask, so that a stranger cannot connect", { skip }, async () => {
    const before = process.umask(0);
    const plugin = await open();
    process.umask(before);
    assert.equal((await stat(socket())).mode & 0o777, 0o600);
    await chmod(folder, 0o755);
    const script = `
process.setuid(65534);
require("net").connect(${JSON.stringify(socket())})
  .on("connect", () => console.log("in")).on("error", (error) => console.log(error.code));
setTimeout(() => process.exit(), 2000).unref();`;
    const { stdout } = await runCommand(process.execPath, ["-e", script], {
      signal: AbortSignal.timeout(10_000),
    });
    assert.equal(stdout.trim(), "EACCES");
    await plugin.close();
  });
});
