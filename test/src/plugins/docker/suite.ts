/** The Docker plugin over one driver: the same cases for all, over the socket of a plugin with a server behind it. */
import assert from "node:assert/strict";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, describe, it } from "node:test";
import type { Volume } from "@libstorage/model";
import { makeFolder, startServer } from "../../client/fixture.js";
import type { TestServer } from "../../client/fixture.js";
import { cannotGrow } from "../../client/host-fixture.js";
import { mountsBelow, openPlugin, unmountBelow } from "./plugin-fixture.js";
import type { TestPlugin } from "./plugin-fixture.js";

export interface DockerHarness {
  readonly name: string;
  /** Why the driver cannot be here, or false. */
  readonly skip: string | false;
  readonly service: string;
  /** Whether volumes are devices, which get a file system. */
  readonly isBlock: boolean;
  /** Lines below `libstorage.server.services` for the service; made before the server starts. */
  configuration(): string;
  /** What `configuration` made. */
  remove?(): void;
}

interface Shown {
  readonly Name: string;
  readonly Mountpoint: string;
  readonly Status: Readonly<Record<string, unknown>>;
}

export function dockerSuite(harness: DockerHarness): void {
  describe(`Docker over ${harness.name}`, { skip: harness.skip, timeout: 600_000 }, () => {
    const { service } = harness;
    let server: TestServer;
    let folder: string;
    let plugin: TestPlugin;

    before(async () => {
      server = await startServer({ config: harness.configuration() });
    });
    after(async () => {
      await server.close();
      harness.remove?.();
    });
    beforeEach(async () => {
      folder = await makeFolder();
      plugin = await open();
    });
    afterEach(async () => {
      await plugin.close();
      const left = await mountsBelow(folder);
      await unmountBelow(folder);
      const { service: calls } = server.app;
      for (const { id } of Object.values(
        await calls.snapshotsByService({ service }, undefined, {}),
      ))
        await calls.snapshotRemove({ service, snapshotID: id }, undefined, {});
      const held: string[] = [];
      for (const { id, name, attachments = [] } of await volumes()) {
        if (attachments.length > 0) held.push(name);
        for (const { instanceID } of attachments)
          if (instanceID !== null)
            await calls.volumeDetach({ service, volumeID: id }, {}, { instanceIDs: [instanceID] });
        await calls.volumeRemove({ service, volumeID: id, force: true }, undefined, {});
      }
      rmSync(folder, { recursive: true, force: true });
      assert.deepEqual({ left, held }, { left: [], held: [] }, "left mounted or attached");
    });

    const open = (): Promise<TestPlugin> => openPlugin({ host: server.host, folder, service });
    const volumes = async (): Promise<readonly Volume[]> =>
      Object.values(
        await server.app.service.volumesByService({ service, attachments: 1 }, undefined, {}),
      );
    const named = async (name: string): Promise<Volume> => {
      const found = (await volumes()).find((volume) => volume.name === name);
      assert.ok(found, `there is no volume ${name}`);
      return found;
    };
    const get = async (Name: string): Promise<Shown> =>
      (await plugin.ok("Get", { Name }))["Volume"] as Shown;
    const mount = async (Name: string, ID: string): Promise<string> =>
      String((await plugin.ok("Mount", { Name, ID }))["Mountpoint"]);
    const unmount = (Name: string, ID: string): Promise<unknown> =>
      plugin.ok("Unmount", { Name, ID });
    const write = async (name: string, text: string): Promise<void> => {
      writeFileSync(join(await mount(name, "writer"), "f"), text);
      await unmount(name, "writer");
    };
    const read = async (name: string): Promise<string> => {
      const text = readFileSync(join(await mount(name, "reader"), "f"), "utf8");
      await unmount(name, "reader");
      return text;
    };

    it("makes a volume with its options, twice the same, and refuses another", async () => {
      const Opts = { size: "2G", "opt.owner": "web", mountoptions: "noatime" };
      await plugin.ok("Create", { Name: "v", Opts });
      await plugin.ok("Create", { Name: "v", Opts });
      const { size, fields } = await named("v");
      assert.equal(size, 2);
      assert.equal(fields?.["owner"], "web");
      assert.match(await plugin.err("Create", { Name: "v", Opts: { size: "3" } }), /2 GiB, not 3/);
      assert.match(await plugin.err("Create", { Name: "x", Opts: { siez: "3" } }), /is not known/);
      const { Status } = await get("v");
      assert.deepEqual([Status["size"], Status["service"], Status["health"]], [2, service, "ok"]);
    });

    it("keeps what is written, for the next container and over a restart of the plugin", async () => {
      await plugin.ok("Create", { Name: "v", Opts: { size: "1" } });
      await write("v", "first");
      assert.equal((await named("v")).attachments?.length ?? 0, 0);
      await plugin.close();
      plugin = await open();
      assert.equal(await read("v"), "first");
    });

    it("counts uses by container, over a restart of the plugin", async () => {
      await plugin.ok("Create", { Name: "v", Opts: { size: "1" } });
      const path = await mount("v", "c1");
      for (const id of ["c1", "c2", "c2"]) assert.equal(await mount("v", id), path);
      await plugin.close();
      plugin = await open();
      assert.equal((await plugin.ok("Path", { Name: "v" }))["Mountpoint"], path);
      assert.deepEqual((await get("v")).Status["users"], ["c1", "c2"]);
      await unmount("v", "c1");
      assert.equal((await mountsBelow(folder)).length, 1);
      assert.match(await plugin.err("Remove", { Name: "v" }), /in use/);
      await unmount("v", "c2");
      assert.deepEqual(await mountsBelow(folder), []);
      await plugin.ok("Remove", { Name: "v" });
      assert.deepEqual(await volumes(), []);
    });

    it("mounts what somebody unmounted by hand again, as a host does that was restarted", async () => {
      await plugin.ok("Create", { Name: "v", Opts: { size: "1" } });
      await mount("v", "c1");
      await plugin.close();
      await unmountBelow(folder);
      plugin = await open();
      assert.equal((await plugin.ok("Path", { Name: "v" }))["Mountpoint"], "");
      await mount("v", "c2");
      assert.equal((await mountsBelow(folder)).length, 1);
      await unmount("v", "c2");
      await unmount("v", "c1");
    });

    it("lists all with one request, mounted or not", async () => {
      for (const Name of ["a", "b", "c"]) await plugin.ok("Create", { Name, Opts: { size: "1" } });
      const path = await mount("b", "c1");
      server.requests.length = 0;
      const { Volumes } = (await plugin.ok("List")) as { Volumes: Shown[] };
      assert.equal(server.requests.length, 1, server.requests.map(({ line }) => line).join("\n"));
      const places = Volumes.map(({ Name, Mountpoint }) => `${Name} ${Mountpoint}`);
      assert.deepEqual(places.toSorted(), ["a ", `b ${path}`, "c "]);
      await unmount("b", "c1");
    });

    it("makes copies, snapshots and larger volumes, and adopts what is there", async () => {
      const make = (Name: string, Opts: object): Promise<unknown> =>
        plugin.ok("Create", { Name, Opts });
      await make("v", { size: "1" });
      await write("v", "first");
      await make("monday", { snapshot: "v" });
      await write("v", "second");
      await make("copy", { from: "v" });
      await make("restored", { fromSnapshot: "monday", size: "2" });
      assert.equal(await read("copy"), "second");
      assert.equal(await read("restored"), "first");
      assert.match(await plugin.err("Mount", { Name: "monday", ID: "c" }), /is a snapshot of/);
      await make("larger", { resize: "v", size: "2G" });
      assert.equal((await named("v")).size, 2);
      assert.equal(await read("v"), "second");
      const { id } = await server.app.service.volumeCreate(
        { service },
        { name: "x y", size: 1 },
        {},
      );
      await make("mine", { adopt: id });
      await write("mine", "own");
      assert.equal(await read("mine"), "own");
      for (const Name of ["mine", "larger", "monday", "restored", "copy", "v"])
        await plugin.ok("Remove", { Name });
      assert.deepEqual(
        (await volumes()).map(({ name }) => name),
        ["x y"],
      );
    });

    it("grows a volume while a container has it", async () => {
      await plugin.ok("Create", { Name: "v", Opts: { size: "1" } });
      const path = await mount("v", "c1");
      writeFileSync(join(path, "f"), "kept");
      const larger = { Name: "larger", Opts: { resize: "v", size: "2" } };
      const lacking = harness.isBlock && cannotGrow("ext4");
      if (lacking !== false)
        assert.match(
          await plugin.err("Create", larger),
          /volume image-\d+ has its new size, but the ext4 .* was not fitted to it: resize2fs/,
        );
      else await plugin.ok("Create", larger);
      assert.equal((await get("v")).Status["size"], 2);
      assert.equal(readFileSync(join(path, "f"), "utf8"), "kept");
      if (harness.isBlock && lacking === false) {
        const { statfs } = await import("node:fs/promises");
        const { blocks, bsize } = await statfs(path);
        assert.ok(blocks * bsize > 1.5 * 1024 ** 3, `${blocks * bsize} bytes`);
      }
      await unmount("v", "c1");
      if (lacking === false) await plugin.ok("Remove", { Name: "larger" });
      await plugin.ok("Remove", { Name: "v" });
    });

    it("takes back what it began where something is in the way", async () => {
      await plugin.ok("Create", { Name: "v", Opts: { size: "1" } });
      const at = join(folder, "var/lib/volumes/v");
      mkdirSync(join(folder, "var/lib/volumes"), { recursive: true });
      writeFileSync(at, "somebody's");
      assert.match(
        await plugin.err("Mount", { Name: "v", ID: "c" }),
        /is not free: there is a file/,
      );
      assert.equal(readFileSync(at, "utf8"), "somebody's");
      assert.equal((await named("v")).attachments?.length ?? 0, 0);
      rmSync(at);
      await write("v", "after all");
      assert.equal(await read("v"), "after all");
    });

    it("many containers at once, each with its own volume", async () => {
      const lives = Array.from({ length: 6 }, async (_, index) => {
        const Name = `v${index}`;
        await plugin.ok("Create", { Name, Opts: { size: "1" } });
        writeFileSync(join(await mount(Name, "c"), "f"), Name);
        assert.equal(await read(Name), Name);
        await unmount(Name, "c");
        await plugin.ok("Remove", { Name });
      });
      await Promise.all(lives);
      assert.deepEqual(await volumes(), []);
    });
  });
}
