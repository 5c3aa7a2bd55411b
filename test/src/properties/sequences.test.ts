/** Random sequences of operations through the service, compared with a model of a dozen lines. */
import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import fc from "fast-check";
import { StorageError } from "@libstorage/model";
import type { CallContext, VolumeService } from "@libstorage/model";
import { DRIVERS, SILENT, Storage, openVolumeService } from "@libstorage/server";
import { makeScratch } from "../faults/folders.js";

const scratch = makeScratch("sequences");
after(() => scratch.remove());
let folders = 0;

const HOSTS = ["host-a", "host-b", "host-c"];
const FROM_SNAPSHOT_GIB = 32;

/** One member of a union for each name, so that the name tells the rest. */
type Named<Name extends string, Rest> = Name extends string ? { readonly do: Name } & Rest : never;
type OfSnapshot = "fromSnapshot" | "snapshotRemove" | "snapshotCopy";
interface At {
  readonly at: number;
  readonly force: boolean;
}

type Step =
  | Named<"create", { readonly size: number }>
  | Named<"copy" | "snapshot" | "remove", At>
  | Named<OfSnapshot, Pick<At, "at">>
  | Named<"attach" | "detach", At & { readonly host: string }>
  | Named<"expand", Pick<At, "at"> & { readonly size: number }>;
type OfVolume = Exclude<Step, { readonly do: "create" | "snapshot" | OfSnapshot }>;

const at = fc.nat(12);
const size = fc.integer({ min: 1, max: 9 });
const force = fc.boolean();
const host = fc.constantFrom(...HOSTS);
const step = fc.oneof(
  fc.record({ do: fc.constant("create" as const), size }),
  fc.record({ do: fc.constantFrom("copy", "snapshot", "remove"), at, force }),
  fc.record({ do: fc.constantFrom("fromSnapshot", "snapshotRemove", "snapshotCopy"), at }),
  fc.record({ do: fc.constantFrom("attach", "detach"), at, host, force }),
  fc.record({ do: fc.constant("expand" as const), at, size }),
);

interface ModelVolume {
  size: number;
  holder: string | undefined;
}

/** What must be there, and what each step must answer: undefined for success, or an error's code. */
class Model {
  readonly volumes = new Map<string, ModelVolume>();
  readonly snapshots = new Set<string>();

  idAt(index: number): string {
    return [...this.volumes.keys()][index] ?? "no-such-volume";
  }

  snapshotAt(index: number): string {
    return [...this.snapshots][index] ?? "no-such-snapshot";
  }

  expected(one: Step): string | undefined {
    if (one.do === "create") return undefined;
    if (one.do === "fromSnapshot" || one.do === "snapshotRemove" || one.do === "snapshotCopy")
      return this.snapshots.has(this.snapshotAt(one.at)) ? undefined : "not-found";
    const volume = this.volumes.get(this.idAt(one.at));
    if (volume === undefined) return "not-found";
    const { holder } = volume;
    if (one.do === "attach")
      return holder === undefined || holder === one.host || one.force
        ? undefined
        : "failed-precondition";
    if (one.do === "remove")
      return holder === undefined || one.force ? undefined : "failed-precondition";
    if (one.do === "expand") return one.size < volume.size ? "invalid-argument" : undefined;
    return undefined;
  }

  /** @param made the id of what the step has made */
  apply(one: Step, made: string): void {
    if (one.do === "create") this.volumes.set(made, { size: one.size, holder: undefined });
    else if (one.do === "fromSnapshot")
      this.volumes.set(made, { size: FROM_SNAPSHOT_GIB, holder: undefined });
    else if (one.do === "snapshot" || one.do === "snapshotCopy") this.snapshots.add(made);
    else if (one.do === "snapshotRemove") this.snapshots.delete(this.snapshotAt(one.at));
    else this.#change(one, made);
  }

  #change(one: OfVolume, made: string): void {
    const id = this.idAt(one.at);
    const volume = this.volumes.get(id);
    assert.ok(volume !== undefined);
    if (one.do === "copy") this.volumes.set(made, { size: volume.size, holder: undefined });
    else if (one.do === "remove") this.volumes.delete(id);
    else if (one.do === "expand") volume.size = one.size;
    else if (one.do === "attach") volume.holder = one.host;
    else if (one.do === "detach" && (one.force || volume.holder === one.host))
      volume.holder = undefined;
  }
}

function contextOf(driver: string, id = "host-a"): CallContext {
  return { who: "tester", instanceIDs: [{ id, driver, service: "" }] };
}

/** Takes a step. @returns the id of what it has made, or an empty text */
async function take(
  service: VolumeService,
  driver: string,
  model: Model,
  one: Step,
): Promise<string> {
  const context = contextOf(driver, "host" in one ? one.host : undefined);
  const name = "x";
  if (one.do === "create")
    return (await service.volumeCreate({ service: "svc" }, { name, size: one.size }, context)).id;
  const params = { service: "svc", volumeID: model.idAt(one.at) };
  const ofSnapshot = { service: "svc", snapshotID: model.snapshotAt(one.at) };
  switch (one.do) {
    case "copy":
      return (await service.volumeCopy(params, { volumeName: name }, context)).id;
    case "snapshot":
      return (await service.volumeSnapshot(params, { snapshotName: name }, context)).id;
    case "fromSnapshot":
      return (
        await service.volumeCreateFromSnapshot(
          ofSnapshot,
          { name, size: FROM_SNAPSHOT_GIB },
          context,
        )
      ).id;
    case "snapshotCopy":
      return (
        await service.snapshotCopy(
          ofSnapshot,
          { snapshotName: name, destinationID: "svc" },
          context,
        )
      ).id;
    case "snapshotRemove":
      await service.snapshotRemove(ofSnapshot, undefined, context);
      return "";
    case "remove":
      await service.volumeRemove({ ...params, force: one.force }, undefined, context);
      return "";
    case "attach":
      await service.volumeAttach(params, { force: one.force }, context);
      return "";
    case "detach":
      await service.volumeDetach(params, { force: one.force }, context);
      return "";
    case "expand":
      await service.volumeExpand(params, { size: one.size }, context);
      return "";
    default:
      return one satisfies never;
  }
}

async function compare(service: VolumeService, driver: string, model: Model): Promise<void> {
  const context = contextOf(driver);
  const volumes = await service.volumesByService(
    { service: "svc", attachments: 1 },
    undefined,
    context,
  );
  const seen = Object.values(volumes).map((volume) => {
    assert.ok((volume.attachments ?? []).length <= 1, "two holders");
    return { id: volume.id, size: volume.size, holder: volume.attachments?.[0]?.instanceID?.id };
  });
  const wanted = [...model.volumes].map(([id, { size: gib, holder }]) => ({
    id,
    size: gib,
    holder,
  }));
  const byID = (a: { id: string }, b: { id: string }): number => (a.id < b.id ? -1 : 1);
  assert.deepEqual(seen.toSorted(byID), wanted.toSorted(byID));
  const snapshots = await service.snapshotsByService({ service: "svc" }, undefined, context);
  assert.deepEqual(Object.keys(snapshots).toSorted(), [...model.snapshots].toSorted());
}

async function play(driver: "mock" | "vfs", steps: readonly Step[]): Promise<void> {
  folders += 1;
  const folder = join(scratch.path, String(folders));
  await mkdir(join(folder, "journal"), { recursive: true });
  const config =
    driver === "mock" ? { seed: false, delayMs: 0 } : { root: join(folder, "root"), quota: "off" };
  const settings = { shareable: false, uniqueNames: false };
  const storage = await Storage.open({
    services: [{ name: "svc", driver: DRIVERS[driver], config, settings }],
    journalFolder: join(folder, "journal"),
    libFolder: folder,
    log: SILENT,
  });
  try {
    const service = openVolumeService(storage);
    const model = new Model();
    const given = new Set<string>();
    for (const one of steps) {
      const expected = model.expected(one);
      let made = "";
      let code: string | undefined;
      try {
        made = await take(service, driver, model, one);
      } catch (error) {
        assert.ok(error instanceof StorageError, String(error));
        code = error.code;
      }
      assert.equal(code, expected, JSON.stringify(one));
      if (made !== "") assert.ok(!given.has(made), `${made} was given twice`);
      given.add(made);
      if (code === undefined) model.apply(one, made);
      await compare(service, driver, model);
    }
    await storage.service("svc").inventory.refresh(AbortSignal.timeout(10_000));
    await compare(service, driver, model);
    assert.deepEqual(storage.journal.openIntents(), []);
  } finally {
    await storage.close();
  }
}

describe("random sequences of operations agree with the model", () => {
  for (const [driver, numRuns] of [
    ["mock", 60],
    ["vfs", 25],
  ] as const)
    it(`over ${driver}`, async () => {
      const steps = fc.array(step, { minLength: 5, maxLength: 30, size: "max" });
      await fc.assert(
        fc.asyncProperty(steps, (sequence) => play(driver, sequence as readonly Step[])),
        { numRuns, endOnFailure: true, interruptAfterTimeLimit: 60_000 },
      );
    });
});
