/** Work on images that is cut at each of its commands and file changes: the content is never lost. */
import assert from "node:assert/strict";
import { copyFileSync, readFileSync, readdirSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { Readable } from "node:stream";
import { CountedFaults } from "@libstorage/server";
import type { FaultMode, OpContext, VolumeRecord } from "@libstorage/server";
import { Fixture, contextOf } from "../conformance/fixture.js";
import type { Case } from "../conformance/fixture.js";
import { checkPattern, diskOf, writePattern } from "./image-place.js";

const MIB = 1024 ** 2;
const MODES: readonly FaultMode[] = ["fail", "lost-answer", "hang", "kill-before", "kill-after"];

type Act = (context: OpContext) => Promise<unknown>;

/** Runs it with its faults, and cancels it when it hangs. @returns whether it failed */
async function hasFailed(act: Act, faults: CountedFaults): Promise<boolean> {
  const cancel = new AbortController();
  const timer = setInterval(() => {
    if (faults.isHanging) cancel.abort();
  }, 2);
  try {
    await act(contextOf({ faults, signal: cancel.signal }));
    return false;
  } catch {
    return true;
  } finally {
    clearInterval(timer);
  }
}

interface Cut {
  readonly fixture: Fixture;
  readonly mode: FaultMode;
  readonly failed: boolean;
  /** Where it was cut, in words. */
  readonly where: string;
}

/** Runs it in a new place for each point that it passes, with a fault at that point. */
async function cutEverywhere(
  { harness }: Fixture,
  prepare: (fixture: Fixture) => Promise<Act>,
  check: (cut: Cut) => Promise<void>,
): Promise<void> {
  for (const mode of MODES)
    for (let at = 1; ; at += 1) {
      const fixture = await Fixture.open(harness);
      try {
        const faults = new CountedFaults(at, mode);
        const failed = await hasFailed(await prepare(fixture), faults);
        const where = `${mode} at ${at}: ${faults.points[at - 1]?.what}`;
        await check({ fixture, mode, failed, where });
        await fixture.empty();
        if (faults.passed >= at) continue;
        assert.ok(at > 1 && !failed, "without a fault it succeeds");
        break;
      } finally {
        await fixture.place.close();
      }
    }
}

const isKill = (mode: FaultMode): boolean => mode.startsWith("kill");

async function wholeVolume({ fixture, where }: Cut, id: string): Promise<VolumeRecord> {
  const found = await fixture.inspect(id);
  assert.ok(found !== undefined && found.broken === undefined, where);
  checkPattern(found, 0x61, 1);
  return found;
}

function cutCase(
  title: string,
  act: (fixture: Fixture, volume: VolumeRecord, context: OpContext) => Promise<unknown>,
): Case {
  return {
    title,
    async run(own) {
      let volume: VolumeRecord;
      const prepare = async (fixture: Fixture): Promise<Act> => {
        volume = await fixture.create(0, { sizeBytes: 8 * MIB });
        writePattern(volume, 0x61, 1);
        return (context) => act(fixture, volume, context);
      };
      await cutEverywhere(own, prepare, async (cut) => {
        const { fixture, mode, where } = cut;
        // Who only cancelled it has no restart.
        if (isKill(mode)) await fixture.reopen();
        await act(fixture, await wholeVolume(cut, volume.id), contextOf());
        const { path } = diskOf(await wholeVolume(cut, volume.id));
        assert.deepEqual(readdirSync(dirname(path)), [basename(path)], where);
      });
    },
  };
}

/** A disk from outside. @returns its path in the folder for imports */
async function offeredIn(fixture: Fixture): Promise<string> {
  const source = await fixture.create(0, { fields: { format: "qcow2" }, sizeBytes: 4 * MIB });
  writePattern(source, 0x61, 1);
  const { path } = diskOf(source);
  const offered = join(path, "../../../import/offered");
  copyFileSync(path, offered);
  await fixture.driver.volumeRemove(source.id, contextOf());
  return offered;
}

function madeCase(
  title: string,
  act: (fixture: Fixture, offered: string, context: OpContext) => Promise<unknown>,
): Case {
  return {
    title,
    async run(own) {
      let offered = "";
      let content: Buffer;
      const prepare = async (fixture: Fixture): Promise<Act> => {
        offered = await offeredIn(fixture);
        content = readFileSync(offered);
        return (context) => act(fixture, offered, context);
      };
      await cutEverywhere(own, prepare, async (cut) => {
        const { fixture, mode, failed, where } = cut;
        const { id } = fixture.volume(1);
        if (!isKill(mode) && failed) {
          assert.deepEqual(await fixture.list(), { volumes: [], snapshots: [] }, where);
          assert.deepEqual(await fixture.place.leftovers(), [], where);
        }
        await fixture.reopen();
        assert.ok(readFileSync(offered).equals(content), where);
        // As recovery does with what is not known to have been made.
        if (failed) await fixture.driver.volumeRemove(id, contextOf());
        if (failed) await act(fixture, offered, contextOf());
        const { path } = diskOf(await wholeVolume(cut, id));
        assert.deepEqual(readdirSync(dirname(path)), [basename(path)], where);
      });
    },
  };
}

export const CUT_CASES: readonly Case[] = [
  cutCase(
    "a convert that is cut or cancelled anywhere keeps the content, and goes through again",
    (fixture, volume, context) =>
      fixture.driver.images?.convert(volume, "raw", context) ?? Promise.resolve(),
  ),
  cutCase(
    "a shrink that is cut or cancelled anywhere keeps the content, and goes through again",
    (fixture, volume, context) =>
      fixture.driver.images?.shrink(volume, 4 * MIB, false, context) ?? Promise.resolve(),
  ),
  madeCase(
    "an import that is cut or cancelled anywhere leaves nothing, and goes through again",
    (fixture, _offered, context) => {
      const fields = { import: "offered", importformat: "qcow2" };
      const wanted = fixture.volume(1, { fields, sizeBytes: 4 * MIB });
      return fixture.driver.volumeCreate(wanted, context);
    },
  ),
  madeCase(
    "an upload that is cut or cancelled anywhere leaves nothing, and goes through again",
    async (fixture, offered, context) => {
      const bytes = Readable.from([readFileSync(offered)]);
      const content = { format: "qcow2", bytes, isSizeGiven: false } as const;
      const wanted = fixture.volume(1, { sizeBytes: 4 * MIB });
      return fixture.driver.content?.volumeCreateFrom(wanted, content, context);
    },
  ),
];
