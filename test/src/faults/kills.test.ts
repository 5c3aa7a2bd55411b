/** Real kills: a server process under load dies at random moments, and everything it answered holds. */
import assert from "node:assert/strict";
import { fork } from "node:child_process";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { DRIVERS, SILENT, Storage } from "@libstorage/server";
import { makeScratch } from "./folders.js";
import { checkInvariants } from "./invariants.js";
import type { Told } from "./kill-load.js";
import { SERVICE, readWorld } from "./world.js";
import type { World, WorldState } from "./world.js";

const LOAD = fileURLToPath(new URL("kill-load.js", import.meta.url));
const ROUNDS = 20;
const LONGEST_MS = 500;
const scratch = makeScratch("kills");
after(() => scratch.remove());

/** Runs a server until it is killed. @returns what it told */
async function runAndKill(folder: string): Promise<Told[]> {
  const told: Told[] = [];
  const child = fork(LOAD, [folder], { stdio: ["ignore", "inherit", "inherit", "ipc"] });
  const ended = new Promise<NodeJS.Signals | null>((resolve) =>
    child.once("close", (_code, signal) => resolve(signal)),
  );
  const ready = new Promise<void>((resolve) =>
    child.on("message", (message) => {
      told.push(message as Told);
      if ((message as Told).what === "ready") resolve();
    }),
  );
  await Promise.race([ready, ended]);
  await sleep(Math.random() * LONGEST_MS);
  child.kill("SIGKILL");
  assert.equal(await ended, "SIGKILL", "it ended before it was killed");
  return told;
}

function worldIn(folder: string): World {
  return { folder, open: () => reopen(folder), read: async () => readWorld(folder) };
}

function reopen(folder: string): Promise<Storage> {
  const config = { root: join(folder, "root"), quota: "off" };
  const settings = { shareable: false, uniqueNames: false };
  return Storage.open({
    services: [{ name: SERVICE, driver: DRIVERS.vfs, config, settings }],
    journalFolder: join(folder, "journal"),
    libFolder: join(folder, "lib"),
    log: SILENT,
  });
}

/** The volumes that must be there, and those that may. */
class Expected {
  readonly there = new Set<string>();
  /** Another caller may see a new volume, and announce its removal, before its maker tells of it. */
  readonly #doomed = new Set<string>();
  readonly gone = new Set<string>();
  readonly held = new Set<string>();
  source = "";
  answers = 0;

  take(told: readonly Told[]): void {
    this.held.clear();
    for (const { what, id } of told) {
      this.answers += 1;
      if (what === "ready") this.source = id;
      if (what === "removing") {
        this.#doomed.add(id);
        this.there.delete(id);
      }
      const isMade = what === "created" || what === "ready";
      if (isMade && !this.#doomed.has(id)) this.there.add(id);
      if (what === "removed") this.gone.add(id);
      if (what === "attached") this.held.add(id);
      if (what === "detaching" || what === "removing") this.held.delete(id);
    }
  }
}

async function checkRound(
  folder: string,
  expected: Expected,
  before: WorldState,
): Promise<WorldState> {
  const storage = await reopen(folder);
  try {
    assert.deepEqual(storage.warnings, []);
    await storage.recovered();
    await storage.service(SERVICE).driver.close();
    const state = await checkInvariants(worldIn(folder), storage, before);
    const byID = new Map([...state.values()].map((object) => [object.id, object]));
    for (const id of expected.there) assert.ok(byID.has(id), `${id} was answered and is not there`);
    for (const id of expected.gone) assert.ok(!byID.has(id), `${id} was removed and is there`);
    for (const id of expected.held) assert.deepEqual(byID.get(id)?.holders, ["host-a"], id);
    checkOrigins(storage, byID.keys(), byID.get(expected.source)?.data, state);
    return state;
  } finally {
    await storage.close();
  }
}

/** Each volume was made by an operation that ended, and each copy holds what its source does. */
function checkOrigins(
  storage: Storage,
  ids: Iterable<string>,
  sourceData: string | undefined,
  state: WorldState,
): void {
  const made = new Map<string, string>();
  for (const { phase, operation, volumeID } of storage.journal.since(0))
    if (phase === "end" && volumeID !== undefined && operation.startsWith("volumeC"))
      made.set(volumeID, operation);
  for (const id of ids) assert.ok(made.has(id), `${id} is left of an operation without an end`);
  for (const { id, data } of state.values())
    if (made.get(id) === "volumeCopy") assert.equal(data, sourceData, `the data of copy ${id}`);
}

describe("a server that is killed under load", () => {
  it(`keeps what it answered, and nothing else, ${ROUNDS} times`, async (t) => {
    const folder = join(scratch.path, "world");
    await mkdir(join(folder, "journal"), { recursive: true });
    const expected = new Expected();
    let state: WorldState = new Map();
    for (let round = 0; round < ROUNDS; round += 1) {
      expected.take(await runAndKill(folder));
      state = await checkRound(folder, expected, state);
    }
    t.diagnostic(`${ROUNDS} kills, ${expected.answers} answers, ${readWorld(folder).size} volumes`);
    assert.ok(expected.answers > ROUNDS * 5, "there was load");
  });
});
