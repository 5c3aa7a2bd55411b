/** libvirt's storage proposal over HTTP, in-process, and through the client library. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  statfsSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { openClient } from "@libstorage/client";
import {
  VIR_STORAGE_SPARSE_FILE,
  VIR_STORAGE_STAT_BUFFER_TYPE_FILE,
  openHypervisor,
} from "@libstorage/client/hypervisor";
import { StorageError } from "@libstorage/model";
import type { Progress, Task } from "@libstorage/model";
import { BIN, run } from "../client/fixture.js";
import { startRest } from "./rest-server.js";
import type { RestServer } from "./rest-server.js";

const MIB_IN_KB = 1024;

function config(root: string): string {
  return `
libstorage:
  server:
    hypervisor:
      fileLocations:
        - ${root}/images/xen*.img
        - ${root}/guests/*/disk
        - ${root}/linked/*
        - /dev/libstorage-test-*
    services:
      one: {driver: mock, mock: {seed: false}}
      files: {driver: vfs, vfs: {root: ${root}/vfs}}
`;
}

describe("hypervisor front-end", () => {
  let server: RestServer;
  let root: string;

  before(async () => {
    root = realpathSync(mkdtempSync(join(tmpdir(), "libstorage-hypervisor-")));
    for (const folder of ["images", "guests/web", "elsewhere", "other-disk", "vfs"])
      mkdirSync(join(root, folder), { recursive: true });
    symlinkSync(join(root, "other-disk"), join(root, "linked"));
    writeFileSync(join(root, "other-disk/guest"), "123");
    writeFileSync(join(root, "elsewhere/secret"), "12345");
    server = await startRest(config(root));
  });
  after(async () => {
    await server.close();
    rmSync(root, { recursive: true, force: true });
  });

  const at = (path: string): string => join(root, path);
  const get = (call: string, path: string) =>
    server.ask("GET", `/hypervisor/${call}?path=${encodeURIComponent(path)}`);
  const create = (path: string, size: number, flags = 0, query = "") =>
    server.ask("POST", `/hypervisor/files${query}`, { body: { path, size, flags } });

  it("tells the locations as they are configured", async () => {
    const answer = await server.ask("GET", "/hypervisor/locations");
    assert.equal(answer.status, 200);
    assert.deepEqual(answer.json(), [
      at("images/xen*.img"),
      at("guests/*/disk"),
      at("linked/*"),
      "/dev/libstorage-test-*",
    ]);
  });

  it("makes a sparse file, of kilobytes, and says what it is", async () => {
    const made = await create(at("images/xen1.img"), 3 * MIB_IN_KB, 1);
    assert.equal(made.status, 201, made.text);
    assert.deepEqual(made.json(), { type: 2, size: 3 * 1024 ** 2 });
    const file = statSync(at("images/xen1.img"));
    assert.equal(file.size, 3 * 1024 ** 2);
    assert.ok(file.blocks * 512 < 1024 ** 2, `it takes ${file.blocks * 512} bytes`);
    const stat = await get("stat", at("images/xen1.img"));
    assert.deepEqual(stat.json(), { type: 2, size: 3 * 1024 ** 2 });
    assert.deepEqual(readdirSync(at("images")), ["xen1.img"]);
  });

  it("makes a full file, whose space is taken", async () => {
    const made = await create(at("guests/web/disk"), 2 * MIB_IN_KB + 1);
    assert.equal(made.status, 201, made.text);
    const file = statSync(at("guests/web/disk"));
    assert.equal(file.size, 2 * 1024 ** 2 + 1024);
    assert.ok(file.blocks * 512 >= file.size, `it takes ${file.blocks * 512} bytes`);
    assert.equal(file.mode & 0o777, 0o600);
  });

  it("shows how far a full file is, in its task", async () => {
    const asked = await create(at("guests/web/disk2"), 1);
    assert.equal(asked.status, 403, "a name outside the wildcard");
    mkdirSync(at("guests/long"), { recursive: true });
    const answer = await create(at("guests/long/disk"), 600 * MIB_IN_KB, 0, "?async");
    assert.equal(answer.status, 202);
    const { id } = answer.json<Task>();
    const seen = new Set<number>();
    let task: Task;
    do {
      task = (await server.ask("GET", `/tasks/${id}`)).json<Task>();
      if (task.progress !== undefined) {
        assert.equal(task.progress.total, 600 * 1024 ** 2);
        assert.equal(task.progress.unit, "bytes");
        seen.add(task.progress.done);
      }
    } while (task.state !== "success" && task.state !== "error");
    assert.equal(task.state, "success", JSON.stringify(task.error));
    assert.ok(seen.has(600 * 1024 ** 2));
    assert.deepEqual(task.result, { type: 2, size: 600 * 1024 ** 2 });
    rmSync(at("guests/long/disk"));
  });

  it("refuses a file that is there, and leaves it as it is", async () => {
    writeFileSync(at("images/xen-there.img"), "mine");
    const again = await create(at("images/xen-there.img"), 1);
    assert.equal(again.status, 409, again.text);
    assert.equal(statSync(at("images/xen-there.img")).size, 4);
  });

  it("refuses a size that does not fit, sparse or not, before anything is made", async () => {
    const { bsize, bavail } = statfsSync(at("images"));
    const kilobytes = Math.ceil((bsize * bavail) / 1024) + 1024 ** 2;
    for (const flags of [0, 1]) {
      const refused = await create(at("images/xen-big.img"), kilobytes, flags);
      assert.equal(refused.status, 507, refused.text);
    }
    assert.ok(!existsSync(at("images/xen-big.img")));
  });

  it("answers null for a file that is not there, or whose folder is not", async () => {
    for (const path of ["images/xen-none.img", "guests/none/disk"]) {
      const answer = await get("stat", at(path));
      assert.equal(answer.status, 200);
      assert.equal(answer.json<unknown>(), null);
    }
  });

  it("tells the free space of a file's file system, and of its folder", async () => {
    const expected = statfsSync(root);
    for (const path of ["images/xen1.img", "images", "images/", "guests/web"]) {
      const answer = await get("statvfs", `${root}/${path}`);
      assert.equal(answer.status, 200, answer.text);
      const { bsize, bavail } = answer.json<{ bsize: number; bavail: number }>();
      assert.equal(bsize, expected.bsize);
      assert.ok(Math.abs(bavail - expected.bavail) * bsize < 2 * 1024 ** 3);
    }
    assert.equal((await get("statvfs", at("images/xen-none.img"))).status, 404);
  });

  it("refuses what is outside, by text", async () => {
    for (const path of [
      "/etc/passwd",
      at("elsewhere/secret"),
      `${root}/images/../elsewhere/secret`,
      `${root}/images/xen/../../elsewhere/secret`,
      `${root}/images//xen1.img`,
      `${root}/./images/xen1.img`,
      at("images/other.img"),
      root,
    ])
      for (const call of ["stat", "statvfs"]) {
        const { status, text } = await get(call, path);
        assert.equal(status, 403, `${call} ${path}: ${text}`);
      }
    assert.equal((await get("stat", `${root}/images/xen1.img/`)).status, 403);
    for (const path of ["images/xen1.img", "", `${root}/images/xen\0.img`])
      assert.equal((await get("stat", path)).status, 400, JSON.stringify(path));
    assert.equal((await create(`${root}/images/../elsewhere/xen.img`, 1)).status, 403);
  });

  it("refuses what a link leads to outside, at the end or on the way", async () => {
    symlinkSync(at("elsewhere/secret"), at("images/xen-link.img"));
    symlinkSync(at("elsewhere/none"), at("images/xen-dangling.img"));
    symlinkSync(at("elsewhere"), at("guests/link"));
    writeFileSync(at("elsewhere/disk"), "");
    for (const path of ["images/xen-link.img", "images/xen-dangling.img", "guests/link/disk"])
      for (const call of ["stat", "statvfs"]) {
        const { status, text } = await get(call, at(path));
        assert.equal(status, 403, `${call} ${path}: ${text}`);
      }
    rmSync(at("elsewhere/disk"));
    const absent = await get("stat", at("guests/link/disk"));
    assert.equal(absent.status, 403, "what is not there outside is not told either");
    const made = await create(at("guests/link/disk"), 1);
    assert.equal(made.status, 403, made.text);
    assert.ok(!existsSync(at("elsewhere/disk")));
    const over = await create(at("images/xen-dangling.img"), 1);
    assert.equal(over.status, 409, over.text);
    assert.ok(!existsSync(at("elsewhere/none")));
  });

  it("follows the administrator's own links above a wildcard, and links from one location to another", async () => {
    const answer = await get("stat", at("linked/guest"));
    assert.deepEqual(answer.json(), { type: 2, size: 3 }, answer.text);
    symlinkSync(at("images/xen1.img"), at("images/xen-alias.img"));
    const alias = await get("stat", at("images/xen-alias.img"));
    assert.deepEqual(alias.json(), { type: 2, size: 3 * 1024 ** 2 });
  });

  it("makes nothing outside while a folder is swapped for a link under it", async () => {
    mkdirSync(at("guests/swap"), { recursive: true });
    symlinkSync(at("elsewhere"), at("guests/swap-link"));
    let isOver = false;
    const swapping = (async () => {
      while (!isOver) {
        renameSync(at("guests/swap"), at("guests/swap-kept"));
        renameSync(at("guests/swap-link"), at("guests/swap"));
        await new Promise(setImmediate);
        renameSync(at("guests/swap"), at("guests/swap-link"));
        renameSync(at("guests/swap-kept"), at("guests/swap"));
        await new Promise(setImmediate);
      }
    })();
    const statuses = new Set<number>();
    for (let turn = 0; turn < 60; turn += 1) {
      statuses.add((await create(at("guests/swap/disk"), 64, turn % 2)).status);
      const seen = await get("stat", at("guests/swap/disk"));
      if (seen.status === 200 && seen.json<unknown>() !== null)
        assert.deepEqual(seen.json(), { type: 2, size: 64 * 1024 });
      rmSync(at("guests/swap-kept/disk"), { force: true });
      if (statSync(at("guests/swap")).ino !== statSync(at("elsewhere")).ino)
        rmSync(at("guests/swap/disk"), { force: true });
      assert.deepEqual(readdirSync(at("elsewhere")), ["secret"]);
    }
    isOver = true;
    await swapping;
    assert.ok(statuses.has(201), [...statuses].join(","));
    assert.ok(statuses.has(403), [...statuses].join(","));
  });

  it("removes what it began when its task is cancelled", async () => {
    mkdirSync(at("guests/cancel"), { recursive: true });
    const { bsize, bavail } = statfsSync(root);
    const kilobytes = Math.min(4 * 1024 ** 2, Math.floor((bsize * bavail) / 1024 / 2));
    const asked = await create(at("guests/cancel/disk"), kilobytes, 0, "?async");
    const { id } = asked.json<Task>();
    await server.ask("DELETE", `/tasks/${id}`);
    let task: Task;
    do task = (await server.ask("GET", `/tasks/${id}`)).json<Task>();
    while (task.state !== "success" && task.state !== "error");
    assert.equal(task.errorCode, "cancelled", JSON.stringify(task));
    assert.deepEqual(readdirSync(at("guests/cancel")), []);
  });

  it("refuses what has wrong types, units or members", async () => {
    for (const body of [
      { path: at("images/xen2.img"), size: 1.5 },
      { path: at("images/xen2.img"), size: 0 },
      { path: at("images/xen2.img"), size: -1 },
      { path: at("images/xen2.img"), size: "1" },
      { path: at("images/xen2.img"), size: 2 ** 53 },
      { path: at("images/xen2.img"), size: 1, flags: 2 },
      { path: at("images/xen2.img"), size: 1, sparse: true },
      { size: 1 },
    ]) {
      const { status, text } = await server.ask("POST", "/hypervisor/files", { body });
      assert.equal(status, 400, text);
    }
  });

  const loop = spawnSync("losetup", ["--find"], { encoding: "utf8" });
  const noLoop = loop.status === 0 && process.getuid?.() === 0 ? false : "no loop device to be had";
  it(
    "tells the size of a block device in a location, and of none elsewhere",
    { skip: noLoop },
    async () => {
      const image = at("elsewhere/disk.raw");
      writeFileSync(image, Buffer.alloc(5 * 1024 ** 2));
      const { stdout } = spawnSync("losetup", ["--find", "--show", image], { encoding: "utf8" });
      const device = stdout.trim();
      try {
        const refused = await get("stat", device);
        assert.equal(refused.status, 403, refused.text);
        const other = await startRest(
          config(root).replace("/dev/libstorage-test-*", "/dev/loop*").replace("/vfs}", "/vfs2}"),
        );
        try {
          const answer = await other.ask(
            "GET",
            `/hypervisor/stat?path=${encodeURIComponent(device)}`,
          );
          assert.equal(answer.status, 200, answer.text);
          assert.deepEqual(answer.json(), { type: 1, size: 5 * 1024 ** 2 });
        } finally {
          await other.close();
        }
      } finally {
        spawnSync("losetup", ["--detach", device]);
        rmSync(image);
      }
    },
  );

  it("lists the services as groups, in kilobytes", async () => {
    const groups = (await server.ask("GET", "/hypervisor/groups")).json<
      { magic: number; name: string; flags: number; size: number; avail: number }[]
    >();
    assert.deepEqual(
      groups.map(({ name, magic, flags }) => [name, magic, flags]),
      [
        ["files", 0x57083001, 0],
        ["one", 0x57083001, 0],
      ],
    );
    const info = (await server.ask("GET", "/services/files?capacity")).json<{
      capacity?: { totalBytes: number };
    }>();
    assert.equal(groups[0]?.size, Math.floor((info.capacity?.totalBytes ?? 0) / 1024));
  });

  it("creates a volume of kilobytes in a group, which the other routes know", async () => {
    const body = { name: "guest1", size: 10 * 1024 ** 2, flags: 0 };
    const made = await server.ask("POST", "/hypervisor/groups/files", { body });
    assert.equal(made.status, 201, made.text);
    const { name, volumeID } = made.json<{ name: string; volumeID: string }>();
    assert.ok(existsSync(name), name);
    const volume = (await server.ask("GET", `/volumes/files/${volumeID}`)).json<{ name: string }>();
    assert.equal(volume.name, "guest1");
    const again = await server.ask("POST", "/hypervisor/groups/files", { body });
    assert.equal(again.status, 409, again.text);
    const unknown = await server.ask("POST", "/hypervisor/groups/none", { body });
    assert.equal(unknown.status, 404);
  });

  it("answers a repeated request with the first answer", async () => {
    const headers = { "Idempotency-Key": "once" };
    const body = { path: at("images/xen-once.img"), size: 1, flags: 1 };
    const first = await server.ask("POST", "/hypervisor/files", { headers, body });
    const second = await server.ask("POST", "/hypervisor/files", { headers, body });
    assert.deepEqual([first.status, second.status], [201, 201]);
  });

  it("speaks the same without HTTP", async () => {
    const { service } = server.app;
    assert.deepEqual(
      await service.storageFileStat({ path: at("images/xen1.img") }, undefined, {}),
      {
        type: 2,
        size: 3 * 1024 ** 2,
      },
    );
    await assert.rejects(
      service.storageFileStat({ path: "/etc/passwd" }, undefined, {}),
      (error) => error instanceof StorageError && error.code === "permission-denied",
    );
  });

  it("is spoken by the client library, in the proposal's names", async () => {
    const client = openClient({ host: `tcp://127.0.0.1:${server.port}` });
    try {
      const hypervisor = openHypervisor(client);
      assert.ok((await hypervisor.virStorageFileLocations()).includes(at("images/xen*.img")));
      const path = at("images/xen-library.img");
      assert.equal(await hypervisor.virStorageFileStat(path), null);
      const seen: Progress[] = [];
      await hypervisor.virStorageCreateFile(path, 1024, 0, {
        onProgress: (progress) => seen.push(progress),
      });
      assert.deepEqual(seen.at(-1), { done: 1024 ** 2, total: 1024 ** 2, unit: "bytes" });
      assert.deepEqual(await hypervisor.virStorageFileStat(path), {
        type: VIR_STORAGE_STAT_BUFFER_TYPE_FILE,
        size: 1024 ** 2,
      });
      await assert.rejects(
        hypervisor.virStorageCreateFile(path, 1, VIR_STORAGE_SPARSE_FILE),
        (error) => error instanceof StorageError && error.code === "already-exists",
      );
      const { bsize } = await hypervisor.virStorageFileStatVFS(at("images"));
      assert.equal(bsize, statfsSync(root).bsize);
      const [group] = await hypervisor.virStorageListGroups();
      assert.equal(group?.name, "files");
      const device = await hypervisor.virStorageCreateVolume("guest2", "files", 1024 ** 2);
      assert.ok(existsSync(device), device);
    } finally {
      client.close();
    }
  });

  it("is spoken by the command line", async () => {
    const host = ["--host", `tcp://127.0.0.1:${server.port}`];
    const path = at("images/xen-cli.img");
    const made = await run(BIN, [...host, "file", "create", path, "1M", "--sparse"]);
    assert.equal(made.code, 0, made.stderr);
    const seen = await run(BIN, [...host, "file", "stat", path]);
    assert.match(seen.stdout, /file\s+1048576/);
    const space = await run(BIN, [...host, "file", "space", at("images")]);
    assert.match(space.stdout, /iB/);
    const locations = await run(BIN, [...host, "file", "locations"]);
    assert.match(locations.stdout, /xen\*\.img/);
    const groups = await run(BIN, [...host, "group", "ls"]);
    assert.match(groups.stdout, /^files /m);
    const refused = await run(BIN, [...host, "file", "stat", "/etc/passwd"]);
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /outside the file locations/);
    const misused = await run(BIN, [...host, "file", "create", path, "1k5"]);
    assert.equal(misused.code, 2);
  });
});
