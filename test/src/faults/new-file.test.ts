/** The fault run over the files that hypervisors ask for: whole under their name, or not there at all. */
import assert from "node:assert/strict";
import { existsSync, readdirSync, statSync } from "node:fs";
import { mkdir, mkdtemp, realpath, rm } from "node:fs/promises";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import {
  CountedFaults,
  FileLocations,
  SILENT,
  Storage,
  hypervisorRecoveries,
  openVolumeService,
} from "@libstorage/server";
import type { FaultMode, FaultPlan } from "@libstorage/server";
import { makeScratch } from "./folders.js";
import { WithoutCheck } from "./world.js";

const scratch = makeScratch("new-file");
const SIZE_KB = 1024;
const MODES = ["fail", "lost-answer", "hang", "kill-before", "kill-after"] as const;

class Scene {
  readonly folder: string;
  readonly locations: FileLocations;

  constructor(folder: string) {
    this.folder = folder;
    this.locations = new FileLocations([join(folder, "images/*.img")]);
  }

  static async make(): Promise<Scene> {
    await mkdir(scratch.path, { recursive: true });
    const folder = await realpath(await mkdtemp(join(scratch.path, "case-")));
    await mkdir(join(folder, "images"));
    await mkdir(join(folder, "journal"));
    return new Scene(folder);
  }

  get path(): string {
    return join(this.folder, "images/guest.img");
  }

  open(faults?: FaultPlan): Promise<Storage> {
    return Storage.open({
      services: [],
      journalFolder: join(this.folder, "journal"),
      libFolder: join(this.folder, "lib"),
      hostRecoveries: hypervisorRecoveries(this.locations),
      log: SILENT,
      faults: new WithoutCheck(faults),
    });
  }

  /** Answers whether it was answered. A file that hangs is cancelled by its caller, or never gets anywhere. */
  async create(storage: Storage, plan: CountedFaults, flags: 0 | 1): Promise<boolean> {
    const service = openVolumeService(storage, this.locations);
    let task = 0;
    const creating = service
      .storageCreateFile(
        {},
        { path: this.path, size: SIZE_KB, flags },
        { onTask: ({ id }) => (task = id) },
      )
      .then(
        () => true,
        () => false,
      );
    for (;;) {
      const answer = await Promise.race([creating, sleep(2)]);
      if (answer !== undefined) return answer;
      if (!plan.isHanging) continue;
      if (storage.operations.tasks.live(task)?.signal.aborted === true) plan.kill();
      else storage.operations.tasks.live(task)?.cancel("the test");
    }
  }
}

async function runCase(mode: FaultMode, at: number, flags: 0 | 1): Promise<number> {
  const scene = await Scene.make();
  const plan = new CountedFaults(at, mode);
  plan.disarm();
  let storage = await scene.open(plan);
  plan.arm();
  const isAnswered = await scene.create(storage, plan, flags);
  const points = plan.passed;
  const { isDead } = plan;
  if (!isDead) plan.disarm();
  await storage.close();
  if (isDead) await rm(join(scene.folder, "journal", "closed"), { force: true });
  storage = await scene.open();
  await storage.recovered();
  const what = `${mode} at ${at}, flags ${flags}`;
  const left = readdirSync(join(scene.folder, "images"));
  if (isAnswered) assert.deepEqual(left, ["guest.img"], what);
  // What was killed may have been done already; it is never half done, and leaves nothing else.
  assert.ok(
    left.length === 0 || (left.length === 1 && left[0] === "guest.img"),
    `${what}: ${left.join(" ")}`,
  );
  if (!isAnswered && !isDead) assert.deepEqual(left, [], what);
  if (existsSync(scene.path)) {
    const { size, blocks } = statSync(scene.path);
    assert.equal(size, SIZE_KB * 1024, what);
    if (flags === 0) assert.ok(blocks * 512 >= size, what);
  }
  assert.deepEqual(storage.journal.openIntents(), [], what);
  assert.equal(storage.operations.stuck.size, 0, what);
  await storage.close();
  await rm(scene.folder, { recursive: true, force: true });
  return points;
}

describe("faults in making a hypervisor's file", () => {
  after(() => scratch.remove());
  for (const flags of [0, 1] as const)
    it(`a ${flags === 0 ? "full" : "sparse"} file is whole or gone, wherever it is hit`, async (t) => {
      const points = await runCase("fail", 0, flags);
      assert.ok(points >= 8, `${points} points`);
      for (const mode of MODES)
        for (let at = 1; at <= points; at += 1) await runCase(mode, at, flags);
      t.diagnostic(`${points} points, ${MODES.length * points} cases`);
    });

  it("recovery leaves alone what is no location any more", async () => {
    const scene = await Scene.make();
    const plan = new CountedFaults(5, "kill-after");
    plan.disarm();
    let storage = await scene.open(plan);
    plan.arm();
    assert.equal(await scene.create(storage, plan, 1), false);
    await storage.close();
    await rm(join(scene.folder, "journal", "closed"), { force: true });
    const left = readdirSync(join(scene.folder, "images"));
    assert.equal(left.length, 1);
    const elsewhere = new Scene(scene.folder);
    Object.assign(elsewhere, { locations: new FileLocations(["/nowhere/*"]) });
    storage = await elsewhere.open();
    await storage.recovered();
    assert.deepEqual(readdirSync(join(scene.folder, "images")), left);
    assert.deepEqual(storage.journal.openIntents(), []);
    await storage.close();
  });
});
