import assert from "node:assert/strict";
import { readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { makeFolder, startServer } from "../../client/fixture.js";
import type { TestServer } from "../../client/fixture.js";
import { cannotMount } from "../../client/host-fixture.js";
import { ask, mountsBelow, openPlugin, unmountBelow } from "./plugin-fixture.js";
import type { TestPlugin } from "./plugin-fixture.js";

const JSON_TYPE = "application/vnd.docker.plugins.v1.1+json";

interface Exchange {
  readonly request: {
    readonly method: string;
    readonly path: string;
    readonly body: string | null;
  };
  readonly response: {
    readonly status: number;
    readonly headers: Readonly<Record<string, string>>;
    readonly body: string;
  };
  readonly note?: string;
}

interface Shown {
  readonly Name: string;
  readonly Mountpoint: string;
  readonly Status: Record<string, unknown>;
}

async function exchanges(): Promise<readonly Exchange[]> {
  const file = new URL("../../../compat/plugins/docker-volume-plugin.json", import.meta.url);
  return JSON.parse(await readFile(fileURLToPath(file), "utf8")) as Exchange[];
}

describe("the Docker plugin's protocol", { skip: cannotMount() }, () => {
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
    const left = await mountsBelow(folder);
    await unmountBelow(folder);
    await rm(folder, { recursive: true, force: true });
    const { service } = server.app;
    const volumes = await service.volumesByService(
      { service: "vfs", attachments: 1 },
      undefined,
      {},
    );
    for (const { id } of Object.values(volumes))
      await service.volumeRemove({ service: "vfs", volumeID: id, force: true }, undefined, {});
    assert.deepEqual(left, [], "left mounted");
  });

  const volumesOf = async (name: string) =>
    Object.values(
      await server.app.service.volumesByService({ service: "vfs", attachments: 1 }, undefined, {}),
    ).filter((volume) => volume.name === name);

  it("answers the recorded session as the reference, but for what is better refused", async () => {
    /** Where the answer is another one, by position, and why. */
    const others: Readonly<Record<number, readonly [status: number, body: RegExp, why: string]>> = {
      4: [500, /option \\"custom\\" is not known/, "unknown options are refused"],
      6: [500, /size must be a size/, "no number is no size"],
      8: [500, /missing volume name or ID/, "the text names no module of the reference"],
      11: [500, /volume d2 not found/, "it was refused above"],
      12: [500, /volume nope not found/, "the text says what is missing"],
      16: [200, /"\/.*\/d1\/data"/, "the path of a volume that is mounted"],
      17: [200, /"Mountpoint":"\/.*\/d1\/data"/, "the same in Get"],
      21: [200, /^\{\}$/, "what is unmounted may be unmounted again"],
      22: [500, /volume newvol not found/, "text"],
      23: [500, /volume nope not found/, "text"],
      26: [500, /volume newvol not found/, "text"],
      27: [400, /not JSON/, "text"],
    };
    const all = await exchanges();
    for (const [at, { request, response, note = "" }] of all.entries()) {
      const got = await ask(plugin.socket, request.path.slice(1), undefined, {
        method: request.method,
        raw: request.body ?? "",
      });
      const where = `${at}: ${request.method} ${request.path} ${request.body ?? ""} (${note})`;
      const other = others[at];
      if (other !== undefined) {
        assert.equal(got.status, other[0], where);
        assert.match(got.text.trim(), other[1], where);
        continue;
      }
      assert.equal(got.status, response.status, `${where}: ${got.text}`);
      assert.equal(got.type, response.headers["Content-Type"], where);
      if (!request.path.endsWith(".List")) {
        const text = response.body.replace("/REDACTED/", `${folder}/`);
        assert.equal(got.text, text, where);
      }
    }
    const { Volumes } = await plugin.ok("List");
    const shown = (Volumes as Shown[]).map(({ Name, Status }) => [
      Name,
      Status["type"],
      Status["size"],
    ]);
    assert.deepEqual(
      shown.toSorted(([a], [b]) => (String(a) < String(b) ? -1 : 1)),
      [
        ["d3", "silver", 16],
        ["d5", "t", 9],
      ],
    );
  });

  it("shows a volume with the reference's members, and more", async () => {
    await plugin.ok("Create", {
      Name: "v",
      Opts: { size: "3", volumetype: "gold", IOPS: "50", availabilityzone: "az7" },
    });
    const { Volume } = (await plugin.ok("Get", { Name: "v" })) as { Volume: Shown };
    const { id, ...status } = Volume.Status;
    assert.deepEqual(status, {
      availabilityZone: "az7",
      fields: { availabilityzone: "az7", iops: "50", size: "3", type: "gold" },
      health: "ok",
      iops: 50,
      name: "v",
      server: "vfs",
      service: "vfs",
      size: 3,
      snapshots: [],
      type: "gold",
    });
    assert.match(String(id), /^vfs-/);
    assert.equal(Volume.Mountpoint, "");
  });

  it("serves on a socket that only its owner can open, and logs one line per call", async () => {
    const { mode } = await stat(plugin.socket);
    assert.equal(mode & 0o777, 0o600);
    const activate = await plugin.call("Plugin.Activate");
    assert.equal(activate.text, '{"Implements": ["VolumeDriver"]}\n');
    assert.equal(activate.type, JSON_TYPE);
    const before = plugin.log.length;
    await plugin.ok("Create", { Name: "v" });
    await plugin.err("Get", { Name: "none" });
    const lines = plugin.log.slice(before);
    assert.deepEqual(
      lines.map(({ op, volume, level, code }) => [op, volume, level, code]),
      [
        ["VolumeDriver.Create", "v", "info", undefined],
        ["VolumeDriver.Get", "none", "warn", "not-found"],
      ],
    );
    for (const { ms } of lines) assert.equal(typeof ms, "number");
  });

  it("makes one volume of two equal creates, also when they come at once", async () => {
    const body = { Name: "twice", Opts: { size: "2", type: "gold" } };
    const answers = await Promise.all(Array.from({ length: 8 }, () => plugin.call("Create", body)));
    for (const { status, text } of answers) assert.equal(status, 200, text);
    await plugin.ok("Create", body);
    await plugin.ok("Create", { Name: "twice", Opts: { SIZE: "2GiB", volumeType: "gold" } });
    // What is not said is not compared.
    await plugin.ok("Create", { Name: "twice" });
    assert.equal((await volumesOf("twice")).length, 1);
  });

  it("refuses a second create with other options, and names the difference", async () => {
    await plugin.ok("Create", { Name: "v", Opts: { size: "2", "opt.owner": "web" } });
    for (const [opts, difference] of [
      [{ size: "3" }, /size is 2 GiB, not 3 GiB/],
      [{ type: "gold" }, /type is not set, not gold/],
      [{ iops: "7" }, /iops is 0, not 7/],
      [{ zone: "a" }, /availabilityzone is not set, not a/],
      [{ encrypted: "true" }, /encrypted is false, not true/],
      [{ share: "true" }, /shareable is false, not true/],
      [{ "opt.owner": "db" }, /owner is web, not db/],
      [{ mountoptions: "ro" }, /mountoptions is not set, not ro/],
    ] as const)
      assert.match(await plugin.err("Create", { Name: "v", Opts: opts }), difference);
    assert.equal((await volumesOf("v")).length, 1);
    assert.equal((await volumesOf("v"))[0]?.size, 2);
  });

  it("counts uses by their id: one that asks twice is one", async () => {
    await plugin.ok("Create", { Name: "v" });
    const { Mountpoint } = await plugin.ok("Mount", { Name: "v", ID: "c1" });
    assert.equal(Mountpoint, join(folder, "var/lib/volumes/v/data"));
    for (const ID of ["c1", "c2", "c2"])
      assert.deepEqual(await plugin.ok("Mount", { Name: "v", ID }), { Mountpoint });
    const { Volume } = (await plugin.ok("Get", { Name: "v" })) as { Volume: Shown };
    assert.deepEqual(Volume.Status["users"], ["c1", "c2"]);
    assert.equal(Volume.Mountpoint, Mountpoint);
    await plugin.ok("Unmount", { Name: "v", ID: "c1" });
    await plugin.ok("Unmount", { Name: "v", ID: "c1" });
    assert.equal((await mountsBelow(folder)).length, 1);
    assert.deepEqual(await plugin.ok("Path", { Name: "v" }), { Mountpoint });
    await plugin.ok("Unmount", { Name: "v", ID: "c2" });
    assert.deepEqual(await mountsBelow(folder), []);
    assert.deepEqual(await plugin.ok("Path", { Name: "v" }), { Mountpoint: "" });
    assert.deepEqual((await volumesOf("v"))[0]?.attachments ?? [], []);
  });

  it("keeps the counts of the command line apart from those of containers", async () => {
    await plugin.ok("Create", { Name: "v" });
    await plugin.ok("Mount", { Name: "v", ID: "c1" });
    const { run, BIN } = await import("../../client/fixture.js");
    const cli = (...args: string[]) =>
      run(BIN, ["volume", ...args, "--host", server.host, "--service", "vfs"], {
        LIBSTORAGE_HOME: folder,
      });
    const refused = await cli("unmount", "v");
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /for 1 container only \(c1\)/);
    assert.equal((await cli("mount", "v")).code, 0);
    await plugin.ok("Unmount", { Name: "v", ID: "c1" });
    assert.equal((await mountsBelow(folder)).length, 1);
    const last = await cli("unmount", "v");
    assert.match(last.stdout, /unmounted and detached/);
    assert.deepEqual(await mountsBelow(folder), []);
  });

  it("refuses to remove what is in use, and removes it once it is not", async () => {
    await plugin.ok("Create", { Name: "v" });
    await plugin.ok("Mount", { Name: "v", ID: "0123456789abcdef" });
    assert.match(
      await plugin.err("Remove", { Name: "v" }),
      /in use .* by the containers 0123456789ab/,
    );
    await plugin.ok("Unmount", { Name: "v", ID: "0123456789abcdef" });
    await plugin.ok("Remove", { Name: "v" });
    assert.match(await plugin.err("Get", { Name: "v" }), /not found/);
    assert.match(await plugin.err("Remove", { Name: "never" }), /volume never not found/);
  });

  it("lists with one request, whatever there is", async () => {
    for (const name of ["a", "b", "c"]) await plugin.ok("Create", { Name: name });
    await plugin.ok("Mount", { Name: "a", ID: "c1" });
    server.requests.length = 0;
    const { Volumes } = (await plugin.ok("List")) as { Volumes: Shown[] };
    assert.equal(server.requests.length, 1, server.requests.map(({ line }) => line).join("\n"));
    assert.deepEqual(Volumes.map(({ Name }) => Name).toSorted(), ["a", "b", "c"]);
    assert.notEqual(Volumes.find(({ Name }) => Name === "a")?.Mountpoint, "");
    await plugin.ok("Unmount", { Name: "a", ID: "c1" });
  });

  it("shows volumes of one name by their ids, and says which there are", async () => {
    const { service } = server.app;
    const ids: string[] = [];
    for (let count = 0; count < 2; count += 1)
      ids.push((await service.volumeCreate({ service: "vfs" }, { name: "same" }, {})).id);
    const { Volumes } = (await plugin.ok("List")) as { Volumes: Shown[] };
    assert.deepEqual(Volumes.map(({ Name }) => Name).toSorted(), ids.toSorted());
    const error = await plugin.err("Mount", { Name: "same", ID: "c" });
    for (const id of ids) assert.ok(error.includes(id), error);
    const { Mountpoint } = await plugin.ok("Mount", { Name: ids[0], ID: "c" });
    assert.match(String(Mountpoint), /\/same\/data$/);
    await plugin.ok("Unmount", { Name: ids[0], ID: "c" });
  });

  it("makes no volume that nobody created", async () => {
    assert.match(await plugin.err("Mount", { Name: "newvol", ID: "c" }), /newvol not found/);
    assert.equal((await volumesOf("newvol")).length, 0);
    assert.match(await plugin.err("Unmount", { Name: "newvol", ID: "c" }), /newvol not found/);
    assert.deepEqual(await plugin.ok("Path", { Name: "newvol" }), { Mountpoint: "" });
  });

  it("changes nothing where creating and removing are switched off, and succeeds", async () => {
    const make = (Name: string, Opts: object): Promise<unknown> =>
      plugin.ok("Create", { Name, Opts });
    await make("vol", { size: "1" });
    await make("snap", { snapshot: "vol" });
    await make("own", { adopt: "vol" });
    await plugin.close();
    const prefix = "libstorage.integration.volume.operations.";
    const settings = { [`${prefix}create.disable`]: "true", [`${prefix}remove.disable`]: "true" };
    plugin = await openPlugin({ host: server.host, folder, settings });
    server.requests.length = 0;
    const sources = [{ from: "vol" }, { fromSnapshot: "snap" }, { snapshot: "vol" }];
    const changes = [{ resize: "vol", size: "2" }, { adopt: "vol", size: "3" }, {}];
    for (const Opts of [...sources, ...changes]) await make("next", Opts);
    for (const Name of ["snap", "own", "vol"]) await plugin.ok("Remove", { Name });
    const asked = server.requests
      .map(({ line }) => line)
      .filter((line) => !line.startsWith("GET "));
    assert.deepEqual(asked, [], "it asked for a change");
    const { Volumes } = (await plugin.ok("List")) as { Volumes: Shown[] };
    assert.deepEqual(Volumes.map(({ Name }) => Name).toSorted(), ["own", "snap", "vol"]);
    assert.equal((await volumesOf("vol"))[0]?.size, 1);
    // What is wrong is wrong all the same.
    assert.match(await plugin.err("Create", { Name: "x", Opts: { siez: "3" } }), /is not known/);
    await plugin.close();
    plugin = await openPlugin({ host: server.host, folder });
    for (const Name of ["snap", "own", "vol"]) await plugin.ok("Remove", { Name });
    assert.equal((await volumesOf("vol")).length, 0);
  });
});
