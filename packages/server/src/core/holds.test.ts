import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { StorageError } from "@libstorage/model";
import type { InstanceID } from "@libstorage/model";
import { mock } from "../drivers/mock/index.js";
import type { DriverModule } from "./driver.js";
import type { Exporter, Hold } from "./exporter.js";
import { openExec } from "./exec.js";
import { openFiles } from "./files.js";
import { SILENT } from "./log.js";
import { Storage } from "./storage.js";

const scratch = mkdtempSync(join(tmpdir(), "libstorage-holds-"));
after(() => rmSync(scratch, { recursive: true, force: true }));
let folders = 0;

const CALLER = { who: "me", via: "test", tx: "tx" };
const CONTEXT = {
  signal: new AbortController().signal,
  log: SILENT,
  exec: openExec({ log: SILENT }),
  files: openFiles(),
  progress: () => {},
};

const scope = { driver: "mock", service: "" };
const FAR: InstanceID = {
  id: "far",
  ...scope,
  metadata: { hostName: "far", bootID: "0b0e0a1c-5a5b-4c5d-8e8f-000000000001" },
};
const bootID = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
const HERE: InstanceID = { id: "any", ...scope, metadata: { hostName: "any", bootID } };

/** Keeps what is exported in a list, and what was done in another. */
class ListExporter implements Exporter {
  readonly name = "list";
  readonly sources = ["none"] as const;
  readonly done: string[] = [];
  exported: string[] = [];
  failing = "";
  lost: () => void = () => {};

  async plan(volume: { id: string }) {
    if (this.failing === "plan") throw new StorageError("invalid-argument", "plan fails");
    return { deviceName: `/dev/disk/by-id/${volume.id.toUpperCase()}`, fields: { lun: "1" } };
  }
  async export({ volume, attachment }: Hold) {
    this.#do("export", volume.id, attachment.instanceID.id);
    this.exported.push(`${volume.id} ${attachment.instanceID.id}`);
  }
  async unexport({ volume, attachment }: Hold) {
    const gone = `${volume.id} ${attachment.instanceID.id}`;
    this.exported = this.exported.filter((one) => one !== gone);
    this.#do("unexport", volume.id, attachment.instanceID.id);
  }
  async restore(holds: readonly Hold[]) {
    if (this.failing === "restore") throw new StorageError("unavailable", "restore fails");
    for (const hold of holds) await this.export(hold);
    return [];
  }
  watch(onLost: () => void) {
    this.lost = onLost;
    return () => {};
  }
  async expanded({ id }: { id: string }) {
    this.#do("expanded", id);
  }
  async sessions() {
    return [];
  }
  async abilities() {
    return [];
  }
  async close() {}

  #do(...words: string[]): void {
    if (words[0] === this.failing) throw new StorageError("unavailable", `${this.failing} fails`);
    this.done.push(words.join(" "));
  }
}

async function scene({ isHostBound = false } = {}) {
  folders += 1;
  const journalFolder = join(scratch, String(folders));
  mkdirSync(journalFolder);
  const config = { seed: false, delayMs: 0 };
  const opened = await mock.open(config, { ...CONTEXT, service: "svc", libFolder: scratch });
  const backend = Object.assign(opened, { isHostBound });
  const driver: DriverModule = { ...mock, open: async () => backend };
  const start = async (exporter?: ListExporter) => {
    const storage = await Storage.open({
      services: [
        {
          name: "svc",
          driver,
          config,
          settings: { shareable: false, uniqueNames: false },
          ...(exporter !== undefined && {
            exporter: {
              module: { name: "list", config: mock.config, open: async () => exporter },
              config: {},
            },
          }),
        },
      ],
      journalFolder,
      libFolder: scratch,
      log: SILENT,
    });
    return { storage, service: storage.service("svc") };
  };
  return { start };
}

const attach = { deviceName: "", force: false };

describe("holds", () => {
  it("can grow where there is no exporter, or one that tells of it", async () => {
    const { start } = await scene();
    const abilities = async (exporter?: ListExporter): Promise<readonly string[]> => {
      const { storage, service } = await start(exporter);
      await storage.close();
      return service.abilities;
    };
    assert.ok((await abilities()).includes("expandOnline"));
    assert.ok((await abilities(new ListExporter())).includes("expandOnline"));
    const silent = Object.assign(new ListExporter(), { expanded: undefined });
    const can = await abilities(silent as unknown as ListExporter);
    assert.ok(can.includes("expand"));
    assert.ok(!can.includes("expandOnline"));
  });

  it("another host comes through the exporter, this one does not", async () => {
    const exporter = new ListExporter();
    const { storage, service } = await (await scene()).start(exporter);
    const { id } = await service.volumeCreate({ name: "v", fields: {} }, CALLER);
    const far = await service.volumeAttach(id, { to: FAR, ...attach }, CALLER);
    assert.equal(far.attachment.deviceName, "/dev/disk/by-id/VOL-004");
    assert.deepEqual(far.attachment.fields, { lun: "1", exporter: "list" });
    assert.equal(far.attachToken, "vol-004");
    assert.equal(far.attachment.instanceID.metadata, undefined, "facts are not kept");
    await service.volumeExpand(id, 2 ** 31, CALLER);
    await service.volumeDetach(id, FAR, false, CALLER);
    const here = await service.volumeAttach(id, { to: HERE, ...attach }, CALLER);
    assert.equal(here.attachment.fields, undefined);
    assert.deepEqual(exporter.done, [
      "export vol-004 far",
      "expanded vol-004",
      "unexport vol-004 far",
    ]);
    await storage.close();
  });

  it("preempting cuts the old holder off before the new one gets in", async () => {
    const exporter = new ListExporter();
    const { storage, service } = await (await scene()).start(exporter);
    const { id } = await service.volumeCreate({ name: "v", fields: {} }, CALLER);
    await service.volumeAttach(id, { to: FAR, ...attach }, CALLER);
    const next = { ...FAR, id: "next" };
    await service.volumeAttach(id, { to: next, deviceName: "", force: true }, CALLER);
    assert.deepEqual(exporter.done.slice(1), ["unexport vol-004 far", "export vol-004 next"]);
    exporter.failing = "unexport";
    await assert.rejects(
      service.volumeAttach(id, { to: FAR, deviceName: "", force: true }, CALLER),
      /unexport fails/,
      "without proof of the cut nobody else gets in",
    );
    assert.deepEqual(
      service.volume(id).attachments.map(({ instanceID }) => instanceID.id),
      ["next"],
    );
    await storage.close();
  });

  it("nobody is cut off for a holder who cannot be let in", async () => {
    const exporter = new ListExporter();
    const { storage, service } = await (await scene()).start(exporter);
    const { id } = await service.volumeCreate({ name: "v", fields: {} }, CALLER);
    await service.volumeAttach(id, { to: FAR, ...attach }, CALLER);
    exporter.failing = "plan";
    const forced = { to: { ...FAR, id: "next" }, deviceName: "", force: true };
    await assert.rejects(service.volumeAttach(id, forced, CALLER), /plan fails/);
    assert.deepEqual(exporter.exported, [`${id} far`]);
    assert.equal(service.volume(id).attachments[0]?.instanceID.id, "far");
    assert.deepEqual(exporter.done, [`export ${id} far`]);
    await storage.close();
  });

  it("whom a cut that failed leaves in the record is let in again", async () => {
    const exporter = new ListExporter();
    const { storage, service } = await (await scene()).start(exporter);
    const { id } = await service.volumeCreate({ name: "v", fields: {} }, CALLER);
    const again = { to: FAR, ...attach };
    await service.volumeAttach(id, again, CALLER);
    for (const act of [
      () => service.volumeAttach(id, { ...again, to: { ...FAR, id: "n" }, force: true }, CALLER),
      () => service.volumeDetach(id, FAR, false, CALLER),
      () => service.volumeRemove(id, true, CALLER),
    ]) {
      exporter.failing = "unexport";
      await assert.rejects(act, /unexport fails/);
      assert.deepEqual(exporter.exported, [`${id} far`]);
    }
    // Where that is not possible either, the holder's own wish does it.
    exporter.unexport = async () => {
      exporter.exported = [];
      exporter.failing = "export";
      throw new StorageError("unavailable", "nothing works");
    };
    await assert.rejects(service.volumeDetach(id, FAR, false, CALLER), /nothing works/);
    await assert.rejects(service.volumeAttach(id, again, CALLER), /export fails/);
    exporter.failing = "";
    await service.volumeAttach(id, again, CALLER);
    assert.deepEqual(exporter.exported, [`${id} far`]);
    const before = exporter.done.length;
    await service.volumeAttach(id, again, CALLER);
    assert.equal(exporter.done.length, before, "what is not in doubt is not done again");
    await storage.close();
  });

  it("an exporter that cannot be restored keeps only its own service from letting anybody in", async (test) => {
    const { start } = await scene();
    const first = await start(new ListExporter());
    const { id } = await first.service.volumeCreate({ name: "v", fields: {} }, CALLER);
    await first.service.volumeAttach(id, { to: FAR, ...attach }, CALLER);
    await first.storage.close();
    const exporter = new ListExporter();
    exporter.failing = "restore";
    test.mock.timers.enable({ apis: ["setTimeout"] });
    const { storage, service } = await start(exporter);
    assert.match(
      storage.warnings.join(),
      /exporter list of service svc could not be brought to what the records say: restore fails/,
    );
    const other = await service.volumeCreate({ name: "w", fields: {} }, CALLER);
    const refused = { code: "unavailable", message: /exporter list of service svc.*restore fails/ };
    for (const to of [FAR, HERE])
      await assert.rejects(service.volumeAttach(other.id, { to, ...attach }, CALLER), refused);
    await assert.rejects(service.volumeDetach(id, FAR, false, CALLER), refused);
    test.mock.timers.tick(10_000);
    await new Promise(setImmediate);
    await assert.rejects(service.volumeDetach(id, FAR, false, CALLER), refused);
    exporter.failing = "";
    test.mock.timers.tick(10_000);
    for (let looks = 0; looks < 100 && storage.warnings.length > 0; looks += 1)
      await new Promise(setImmediate);
    assert.deepEqual(exporter.exported, [`${id} far`]);
    assert.deepEqual(storage.warnings, []);
    await service.volumeDetach(id, FAR, false, CALLER);
    test.mock.timers.reset();
    await storage.close();
  });

  it("what was lost and cannot be made again is shown and tried again, and keeps nobody else out", async (test) => {
    const exporter = new ListExporter();
    test.mock.timers.enable({ apis: ["setTimeout"] });
    const { storage, service } = await (await scene()).start(exporter);
    const { id } = await service.volumeCreate({ name: "v", fields: { shareable: "true" } }, CALLER);
    service.settings = { ...service.settings, shareable: true };
    const near = { ...FAR, id: "near" };
    for (const to of [FAR, near]) await service.volumeAttach(id, { to, ...attach }, CALLER);
    const exporting = exporter.export.bind(exporter);
    let isBroken = true;
    exporter.export = async (hold) => {
      if (isBroken && hold.attachment.instanceID.id === "far")
        throw new StorageError("unavailable", "far is broken");
      await exporting(hold);
    };
    exporter.exported = [];
    exporter.lost();
    for (let looks = 0; looks < 100 && storage.warnings.length === 0; looks += 1)
      await new Promise(setImmediate);
    assert.deepEqual(exporter.exported, [`${id} near`]);
    assert.match(
      storage.warnings.join(),
      /export of volume \S+ of service svc to far could not be made again: far is broken/,
    );
    isBroken = false;
    test.mock.timers.tick(10_000);
    for (let looks = 0; looks < 100 && storage.warnings.length > 0; looks += 1)
      await new Promise(setImmediate);
    assert.deepEqual(storage.warnings, []);
    assert.deepEqual(exporter.exported, [`${id} near`, `${id} far`]);
    test.mock.timers.reset();
    await storage.close();
  });

  it("an export that fails leaves no holder", async () => {
    const exporter = new ListExporter();
    const { storage, service } = await (await scene()).start(exporter);
    const { id } = await service.volumeCreate({ name: "v", fields: {} }, CALLER);
    exporter.failing = "export";
    await assert.rejects(service.volumeAttach(id, { to: FAR, ...attach }, CALLER), /export fails/);
    assert.deepEqual(service.volume(id).attachments, []);
    assert.deepEqual(exporter.done, ["unexport vol-004 far"]);
    await storage.close();
  });

  it("what records name is exported again at start, and when it was lost", async () => {
    const { start } = await scene();
    const first = await start(new ListExporter());
    const { id } = await first.service.volumeCreate({ name: "v", fields: {} }, CALLER);
    await first.service.volumeAttach(id, { to: FAR, ...attach }, CALLER);
    await first.storage.close();
    const exporter = new ListExporter();
    const { storage } = await start(exporter);
    assert.deepEqual(exporter.exported, [`${id} far`]);
    exporter.exported = [];
    exporter.lost();
    await storage.operations.locks.idle();
    assert.deepEqual(exporter.exported, [`${id} far`]);
    await storage.close();
    const without = await start();
    assert.match(without.storage.warnings.join(), /waits for its exporter list/);
    await assert.rejects(
      without.service.volumeDetach(id, FAR, false, CALLER),
      /set "exporter: list" for it again/,
    );
    await without.storage.close();
  });

  it("refuses another host what no exporter carries there", async () => {
    const { storage, service } = await (await scene({ isHostBound: true })).start();
    const { id } = await service.volumeCreate({ name: "v", fields: {} }, CALLER);
    await assert.rejects(
      service.volumeAttach(id, { to: FAR, ...attach }, CALLER),
      /has no exporter.*set "exporter"/,
    );
    const own = { id: hostname(), ...scope };
    await service.volumeAttach(id, { to: own, ...attach }, CALLER);
    await storage.close();
  });

  it("asks for a newer client when it tells nothing of its host", async () => {
    const { storage, service } = await (await scene()).start(new ListExporter());
    const { id } = await service.volumeCreate({ name: "v", fields: {} }, CALLER);
    const silent = { id: "far", ...scope };
    await assert.rejects(
      service.volumeAttach(id, { to: silent, ...attach }, CALLER),
      /use a client of this version/,
    );
    await storage.close();
  });
});
