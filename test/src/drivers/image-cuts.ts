/** Work on images that is cut at each of its commands and file changes: the content is never lost. */
import assert from "node:assert/strict";
import { CountedFaults } from "@libstorage/server";
import type { FaultMode, OpContext, VolumeRecord } from "@libstorage/server";
import { Fixture, contextOf } from "../conformance/fixture.js";
import type { Case } from "../conformance/fixture.js";
import { checkPattern, writePattern } from "./image-place.js";

const MIB = 1024 ** 2;
const MODES: readonly FaultMode[] = ["fail", "lost-answer", "kill-before", "kill-after"];

type Act = (fixture: Fixture, volume: VolumeRecord, context: OpContext) => Promise<unknown>;

function cutCase(title: string, act: Act): Case {
  return {
    title,
    async run({ harness }) {
      for (const mode of MODES)
        for (let at = 1; ; at += 1) {
          const fixture = await Fixture.open(harness);
          try {
            const volume = await fixture.create(0, { sizeBytes: 8 * MIB });
            writePattern(volume, 0x61, 1);
            const faults = new CountedFaults(at, mode);
            const hasFailed = await act(fixture, volume, contextOf({ faults })).then(
              () => false,
              () => true,
            );
            await fixture.reopen();
            const after = await fixture.inspect(volume.id);
            const where = `${mode} at ${at}: ${faults.points.at(-1)?.what}`;
            assert.ok(after !== undefined && after.broken === undefined, where);
            checkPattern(after, 0x61, 1);
            await act(fixture, after, contextOf());
            const done = await fixture.inspect(volume.id);
            assert.ok(done !== undefined && done.broken === undefined, where);
            checkPattern(done, 0x61, 1);
            await fixture.empty();
            if (faults.passed >= at) continue;
            assert.ok(at > 1 && !hasFailed, "without a fault it succeeds");
            break;
          } finally {
            await fixture.place.close();
          }
        }
    },
  };
}

export const CUT_CASES: readonly Case[] = [
  cutCase(
    "a convert that is cut anywhere keeps the content, and goes through again",
    (fixture, volume, context) =>
      fixture.driver.images?.convert(volume, "raw", context) ?? Promise.resolve(),
  ),
  cutCase(
    "a shrink that is cut anywhere keeps the content, and goes through again",
    (fixture, volume, context) =>
      fixture.driver.images?.shrink(volume, 4 * MIB, false, context) ?? Promise.resolve(),
  ),
];
