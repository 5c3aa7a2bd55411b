import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import {
  lstat,
  mkdir,
  readFile,
  readdir,
  readlink,
  rm,
  symlink,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, describe, it } from "node:test";
import { openClient } from "@libstorage/client";
import type { Client } from "@libstorage/client";
import { CommandError, runCommand } from "@libstorage/client/host";
import type { Exec } from "@libstorage/client/host";
import { StorageError } from "@libstorage/model";
import type { VolumeService } from "@libstorage/model";
import { startServer } from "./fixture.js";
import type { TestServer } from "./fixture.js";
import { cannotMount, openHost } from "./host-fixture.js";
import type { TestHost, TestHostOptions } from "./host-fixture.js";

const skip = cannotMount();

/** An `Exec` that fails when the words of a command match. */
function failing(words: RegExp, error: () => Error): Exec {
  return async (file, args, options) => {
    if (words.test([file, ...args].join(" "))) throw error();
    return runCommand(file, args, options);
  };
}

for (const kind of ["REST", "in-process"] as const)
  describe(`volumes of a host, over a service that is ${kind}`, { skip }, () => {
    let server: TestServer;
    let client: Client;
    let service: VolumeService;
    let host: TestHost;
    const hosts: TestHost[] = [];

    async function another(options: TestHostOptions = {}): Promise<TestHost> {
      const made = await openHost(service, options);
      hosts.push(made);
      return made;
    }
    async function create(name: string): Promise<string> {
      return (await service.volumeCreate({ service: "vfs" }, { name }, {})).id;
    }
    async function holders(volumeID: string): Promise<readonly (string | undefined)[]> {
      const params = { service: "vfs", volumeID, attachments: 1 };
      const volume = await service.volumeInspect(params, undefined, {});
      return (volume.attachments ?? []).map(({ instanceID }) => instanceID?.id);
    }

    before(async () => {
      server = await startServer();
      client = openClient({ host: server.host });
      service = kind === "REST" ? client : server.app.service;
    });
    beforeEach(async () => {
      host = await another();
    });
    afterEach(async () => {
      for (const one of hosts.splice(0)) await one.close();
      for (const id of Object.keys(
        await service.volumesByService({ service: "vfs" }, undefined, {}),
      ))
        await service.volumeRemove({ service: "vfs", volumeID: id, force: true }, undefined, {});
    });
    after(async () => {
      client.close();
      await server.close();
    });

    it("mounts the data folder, hands out its root folder, and gives all back", async () => {
      const id = await create("web");
      const mounted = await host.volumes.mount("web", {}, {});
      const mountPoint = join(host.folder, "var/lib/volumes/web");
      assert.deepEqual(mounted, {
        volumeID: id,
        name: "web",
        mountPoint,
        kind: "mount",
        path: `${mountPoint}/data`,
        users: 1,
        wasThere: false,
      });
      await writeFile(`${mounted.path}/f`, "hello");
      assert.equal(await readFile(`${server.vfsRoot}/vol/${id}/data/f`, "utf8"), "hello");
      assert.equal((await lstat(mounted.path)).mode & 0o777, 0o700);
      assert.deepEqual(await host.mounts(), [mountPoint]);
      assert.deepEqual(await holders(id), ["host-a"]);
      assert.equal(await host.volumes.path("web"), mounted.path);
      assert.deepEqual(await host.volumes.unmount("web", {}, {}), { volumeID: id, users: 0 });
      assert.deepEqual(await host.mounts(), []);
      assert.deepEqual(await holders(id), []);
      assert.ok(!existsSync(mountPoint));
      assert.equal(await host.volumes.path("web"), "");
      assert.equal(await readFile(`${server.vfsRoot}/vol/${id}/data/f`, "utf8"), "hello");
    });

    it("counts uses over restarts of the client", async () => {
      const id = await create("web");
      assert.equal((await host.volumes.mount("web", {}, {})).users, 1);
      const second = await host.again().mount(id, {}, {});
      assert.equal(second.users, 2);
      assert.equal(second.wasThere, true);
      assert.equal((await host.again().unmount("web", {}, {})).users, 1);
      assert.equal((await host.mounts()).length, 1);
      assert.equal((await host.again().unmount("web", {}, {})).users, 0);
      assert.deepEqual(await host.mounts(), []);
      await assert.rejects(host.again().unmount("web", {}, {}), {
        code: "failed-precondition",
        message: /is not mounted on this host; it is attached nowhere/,
      });
    });

    it("unmounts at the first request when told to ignore the count", async () => {
      const ignoring = await another({
        settings: { "libstorage.integration.volume.operations.unmount.ignoreUsedCount": "true" },
      });
      await create("web");
      await ignoring.volumes.mount("web", {}, {});
      await ignoring.volumes.mount("web", {}, {});
      assert.equal((await ignoring.volumes.unmount("web", {}, {})).users, 0);
      assert.deepEqual(await ignoring.mounts(), []);
      await host.volumes.mount("web", {}, {});
      await host.volumes.mount("web", {}, {});
      assert.equal((await host.volumes.unmount("web", { force: true }, {})).users, 0);
    });

    it("counts two mounts at once", async () => {
      await create("web");
      const mounted = await Promise.all(
        Array.from({ length: 4 }, () => host.again().mount("web", {}, {})),
      );
      assert.deepEqual(new Set(mounted.map(({ users }) => users)), new Set([1, 2, 3, 4]));
      assert.equal((await host.mounts()).length, 1);
    });

    it("refuses a volume that another host has, by name, and takes it with preempt", async () => {
      const id = await create("web");
      // A real mount on the server's own host would be found, and the cut be refused.
      const other = await another({ name: "host-b", isRoot: false });
      await other.volumes.mount("web", {}, {});
      await assert.rejects(host.volumes.mount("web", {}, {}), {
        code: "failed-precondition",
        message: /attached to host-b/,
      });
      assert.deepEqual(await host.mounts(), []);
      await host.volumes.mount("web", { preempt: true }, {});
      assert.deepEqual(await holders(id), ["host-a"]);
      // The old holder learns that it has lost the volume, before it counts another use.
      await assert.rejects(other.again().mount("web", {}, {}), {
        code: "failed-precondition",
        message: /still mounted at .* but is attached to host-a: unmount it here/,
      });
      await other.volumes.unmount("web", {}, {});
      assert.deepEqual(await holders(id), ["host-a"]);
    });

    it("takes volumes from others by its settings", async () => {
      const taking = await another({
        name: "host-c",
        settings: { "volume.mount.preempt": "true" },
      });
      const id = await create("web");
      await host.volumes.host.attach(id, false, {});
      await taking.volumes.mount("web", {}, {});
      assert.deepEqual(await holders(id), ["host-c"]);
    });

    it("creates a volume that is not there, with the defaults, unless told not to", async () => {
      await host.volumes.mount("new", {}, {});
      const made = Object.values(
        await service.volumesByService({ service: "vfs" }, undefined, {}),
      )[0];
      assert.equal(made?.name, "new");
      assert.equal(made?.size, 16);
      await assert.rejects(host.volumes.mount("newer", { create: false }, {}), {
        code: "not-found",
      });
      const strict = await another({
        settings: { "libstorage.integration.volume.operations.create.implicit": "false" },
      });
      await assert.rejects(strict.volumes.mount("newer", {}, {}), { code: "not-found" });
    });

    it("refuses a name that two volumes have (rexray#44: duplicates, rexray#1287: prefixes)", async () => {
      const ids = [await create("twin"), await create("twin")];
      await create("twins");
      await assert.rejects(host.volumes.mount("twin", {}, {}), (error) => {
        assert.ok(error instanceof StorageError);
        assert.equal(error.code, "failed-precondition");
        for (const id of ids) assert.ok(error.message.includes(id));
        return true;
      });
      await assert.rejects(host.volumes.mount("twi", { create: false }, {}), { code: "not-found" });
      await host.volumes.mount(ids[0] ?? "", {}, {});
    });

    it("refuses mount points that are not free, naming what is there, and detaches again", async () => {
      const id = await create("web");
      const place = join(host.folder, "place");
      await mkdir(place);
      await writeFile(join(place, "file"), "");
      await mkdir(join(place, "full"));
      await writeFile(join(place, "full", "x"), "");
      await symlink("/etc", join(place, "link"));
      await mkdir(join(place, "mounted"));
      await runCommand("mount", ["--bind", "/etc", join(place, "mounted")], {
        signal: AbortSignal.timeout(5000),
      });
      for (const [name, what] of [
        ["file", /there is a file/],
        ["full", /a folder with content \(x\)/],
        ["link", /a symbolic link to \/etc/],
        ["mounted", /a mount of .*\/etc/],
        ["file/below", /not a folder/],
      ] as const) {
        const mountPoint = join(place, name);
        await assert.rejects(host.volumes.mount("web", { mountPoint }, {}), {
          code: "failed-precondition",
          message: what,
        });
        assert.deepEqual(await holders(id), [], name);
      }
      for (const mountPoint of ["relative", "/", "/a\0b"])
        await assert.rejects(host.volumes.mount("web", { mountPoint }, {}), {
          code: "invalid-argument",
        });
      assert.equal(await readFile(join(place, "full", "x"), "utf8"), "");
      await host.volumes.mount("web", { mountPoint: join(place, "new/deep") }, {});
      await assert.rejects(host.volumes.mount("web", { mountPoint: join(place, "other") }, {}), {
        message: /is mounted at .*new\/deep: unmount it there/,
      });
    });

    it("leaves a folder that was there before the mount", async () => {
      const place = join(host.folder, "mine");
      await mkdir(place);
      await create("web");
      for (const isRoot of [true, false]) {
        const { volumes } = isRoot ? host : await another({ isRoot });
        await volumes.mount("web", { mountPoint: place }, {});
        await volumes.unmount("web", {}, {});
        assert.ok((await lstat(place)).isDirectory());
        assert.deepEqual(await readdir(place), []);
      }
    });

    it("keeps names out of the path that would lead elsewhere", async () => {
      for (const name of ["../../etc", "..", "a/b"]) {
        // This server makes no such names, but opens a folder of one that did.
        const id = await create("harmless");
        const record = `${server.vfsRoot}/vol/${id}.json`;
        const text = await readFile(record, "utf8");
        await writeFile(record, text.replace("harmless", name));
        await service.volumesByService({ service: "vfs", refresh: true }, undefined, {});
        const { mountPoint } = await host.volumes.mount(name, {}, {});
        assert.equal(join(mountPoint, ".."), join(host.folder, "var/lib/volumes"));
      }
    });

    it("makes no root folder outside a volume whose data has a link in its place", async () => {
      const id = await create("trap");
      await symlink("/tmp", `${server.vfsRoot}/vol/${id}/data`);
      await assert.rejects(host.volumes.mount("trap", {}, {}), { code: "failed-precondition" });
      assert.deepEqual(await host.mounts(), []);
      assert.deepEqual(await holders(id), []);
    });

    it("mounts nothing but the volume: the record beside the folder must name it", async () => {
      const id = await create("web");
      const record = `${server.vfsRoot}/vol/${id}.json`;
      // Attached before, because an attach writes the record anew.
      await host.volumes.attach(id, false, {});
      const content = await readFile(record, "utf8");
      await writeFile(record, content.replaceAll(id, "vfs-999"));
      // The server may have noticed, too; then the volume has lost its name there.
      await assert.rejects(
        host.volumes.mount(id, { create: false }, {}),
        /does not name that volume|cannot|not found/,
      );
      assert.deepEqual(await host.mounts(), []);
      await writeFile(record, content);
    });

    it("mounts read-only when asked", async () => {
      await create("web");
      const first = await host.volumes.mount("web", {}, {});
      await writeFile(`${first.path}/f`, "x");
      await host.volumes.unmount("web", {}, {});
      const { path } = await host.volumes.mount("web", { mountOptions: "ro" }, {});
      await assert.rejects(writeFile(`${path}/f`, "y"), { code: "EROFS" });
      await host.volumes.unmount("web", {}, {});
      await assert.rejects(host.volumes.mount("web", { mountOptions: "ro -t x" }, {}), {
        code: "invalid-argument",
      });
    });

    it("detaches again when the mount fails, and tries as often as the settings say", async () => {
      const id = await create("web");
      let tried = 0;
      const exec = failing(/^mount /, () => {
        tried += 1;
        return new CommandError("mount", [], { exitCode: 32, stderr: "no such luck" }, undefined);
      });
      const unlucky = await another({
        exec,
        settings: {
          "libstorage.integration.volume.operations.mount.retryCount": "2",
          "libstorage.integration.volume.operations.mount.retryWait": "10ms",
        },
      });
      await assert.rejects(unlucky.volumes.mount("web", {}, {}), /exit code 32: no such luck/);
      assert.equal(tried, 3);
      assert.deepEqual(await holders(id), []);
    });

    it("names who keeps a volume busy, leaves it mounted, and unmounts it later", async () => {
      await create("web");
      const { path } = await host.volumes.mount("web", {}, {});
      const { spawn } = await import("node:child_process");
      const user = spawn("sleep", ["30"], { cwd: path, stdio: "ignore" });
      await new Promise((resolve) => user.once("spawn", resolve));
      await assert.rejects(host.volumes.unmount("web", {}, {}), {
        code: "failed-precondition",
        message: new RegExp(`in use by sleep \\(pid ${user.pid}\\)`),
      });
      assert.equal((await host.mounts()).length, 1);
      user.kill();
      await new Promise((resolve) => user.once("exit", resolve));
      assert.equal((await host.volumes.unmount("web", {}, {})).users, 0);
    });

    it("leaves a mount alone that somebody put over the volume's", async () => {
      const id = await create("web");
      const { mountPoint } = await host.volumes.mount("web", {}, {});
      await runCommand("mount", ["--bind", "/etc", mountPoint], {
        signal: AbortSignal.timeout(5000),
      });
      // By the mount table the volume is not what stands there; its own mount lies below.
      await host.volumes.unmount("web", {}, {});
      assert.equal((await readdir(mountPoint)).includes("passwd"), true);
      assert.deepEqual(await holders(id), []);
    });

    it("forgets what is no longer mounted when it starts", async () => {
      const id = await create("web");
      const { mountPoint } = await host.volumes.mount("web", {}, {});
      await host.volumes.mount("web", {}, {});
      await runCommand("umount", [mountPoint], { signal: AbortSignal.timeout(5000) });
      const restarted = host.again();
      assert.equal(await restarted.path("web"), "");
      assert.deepEqual(await restarted.reconcile({}), [id]);
      assert.equal((await restarted.mount("web", {}, {})).users, 1);
    });

    it("forgets the uses of an earlier start of the host", async () => {
      const id = await create("web");
      await host.volumes.mount("web", {}, {});
      await host.volumes.mount("web", {}, {});
      const file = join(host.folder, "var/lib/mounts/test/vfs", `${id}.json`);
      const record = JSON.parse(await readFile(file, "utf8")) as object;
      await writeFile(file, JSON.stringify({ ...record, boot: "earlier" }));
      assert.equal((await host.again().unmount("web", {}, {})).users, 0);
      assert.deepEqual(await host.mounts(), []);
    });

    it("says so when its own record is broken, and touches nothing", async () => {
      const id = await create("web");
      await host.volumes.mount("web", {}, {});
      await writeFile(join(host.folder, "var/lib/mounts/test/vfs", `${id}.json`), "{");
      await assert.rejects(host.volumes.unmount("web", {}, {}), { code: "data-loss" });
      assert.equal((await host.mounts()).length, 1);
    });

    it("unmounts a volume whose data the server has removed meanwhile", async () => {
      const id = await create("web");
      await host.volumes.mount("web", {}, {});
      await rm(`${server.vfsRoot}/vol/${id}`, { recursive: true });
      await rm(`${server.vfsRoot}/vol/${id}.json`);
      assert.match((await host.mounts())[0] ?? "", /web$/);
      assert.equal((await host.volumes.unmount("web", {}, {})).users, 0);
      assert.deepEqual(await host.mounts(), []);
    });

    it("takes nothing by force that is mounted on the server's host", async () => {
      const id = await create("web");
      await host.volumes.mount("web", {}, {});
      await assert.rejects(
        service.volumeRemove({ service: "vfs", volumeID: id, force: true }, undefined, {}),
        { code: "failed-precondition", message: /still mounted at/ },
      );
    });

    it("makes a symbolic link for who is not root, and takes only its own away", async () => {
      const id = await create("web");
      const user = await another({ isRoot: false });
      const { kind, mountPoint, path } = await user.volumes.mount("web", {}, {});
      assert.equal(kind, "link");
      assert.equal(await readlink(mountPoint), `${server.vfsRoot}/vol/${id}`);
      await writeFile(`${path}/f`, "x");
      assert.equal((await user.again().mount("web", {}, {})).users, 2);
      assert.equal((await user.volumes.unmount("web", {}, {})).users, 1);
      assert.equal((await user.volumes.unmount("web", {}, {})).users, 0);
      assert.ok(!existsSync(mountPoint));
      assert.equal(await readFile(`${server.vfsRoot}/vol/${id}/data/f`, "utf8"), "x");
    });

    it("refuses volumes of the mock driver, which hold nothing", async () => {
      const mock = await another({ service: "mock" });
      await assert.rejects(mock.volumes.mount("vol-000", {}, {}), { code: "unimplemented" });
    });

    it("attaches and mounts nothing as a controller", async () => {
      await create("web");
      await assert.rejects(host.again({ type: "controller" }).mount("web", {}, {}), {
        code: "failed-precondition",
        message: /controller/,
      });
    });

    it("creates with defaults and options, and removes by name", async () => {
      const options = { SIZE: "3", volumeType: "gold", type: "silver", iops: "7", Owner: "me" };
      const volume = await host.volumes.create("opts", options, {});
      assert.equal(volume?.size, 3);
      assert.equal(volume?.type, "silver");
      assert.equal(volume?.iops, 7);
      assert.equal(volume?.fields?.["owner"], "me");
      await assert.rejects(host.volumes.create("bad", { size: "many" }, {}), {
        code: "invalid-argument",
      });
      await host.volumes.remove("opts", {});
      await assert.rejects(host.volumes.remove("opts", {}), { code: "not-found" });
    });
  });
