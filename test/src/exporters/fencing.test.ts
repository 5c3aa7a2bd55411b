/**
 * A volume is taken from a host that writes to it: after the answer no write of that host arrives. Here with
 * iscsi-tgt and an initiator in user space; `test/src/lab/fencing-*.lab.ts` does it with kernels.
 * LIBSTORAGE_FENCING_RUNS says how often.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { makeScratch } from "../faults/folders.js";
import { fencingRuns, summary } from "./fencing-runs.js";
import { freePort, startWriter, tgtMissing } from "./iscsi-client.js";
import { StorageSession } from "./storage-session.js";
import type { Holder } from "./storage-session.js";

const SIZE = 8 * 1024 ** 2;
const RUNS = fencingRuns(5);
const OLD: Holder = { id: "old", initiatorName: "iqn.2026-01.local.test:old" };
const NEW: Holder = { id: "new", initiatorName: "iqn.2026-01.local.test:new" };

describe("fencing", { skip: tgtMissing(), timeout: 60_000 + RUNS * 20_000 }, () => {
  const scratch = makeScratch("fencing");
  after(() => scratch.remove());

  it(`iscsi-tgt: no write arrives after the answer, ${RUNS} times`, async (context) => {
    const session = await StorageSession.open({
      folder: join(scratch.path, "s"),
      kind: "file",
      exporter: "iscsi-tgt",
      config: { portals: [`127.0.0.1:${await freePort()}`], chap: { mode: "none" } },
    });
    let late = 0;
    let writes = 0;
    const id = await session.create(SIZE);
    for (let run = 0; run < RUNS; run++) {
      const attachment = await session.attach(id, OLD);
      const writer = startWriter(attachment, { initiator: "iqn.2026-01.local.test:old" }, SIZE);
      const end = Date.now() + 15_000;
      while (writer.written < 100 && Date.now() < end) await sleep(1);
      // Never at the same place of its work.
      await sleep(Math.random() * 20);
      const before = await session.writes(id);
      const atAnswer = await session.preempt(id, NEW);
      assert.ok(writer.written >= 100 && atAnswer !== before, "the writer did not write");
      writes += writer.written;
      await sleep(RUNS > 20 ? 100 : 500);
      if ((await session.writes(id)) !== atAnswer) late += 1;
      await writer.end();
      await session.detach(id, NEW);
    }
    await session.remove(id);
    await session.close();
    context.diagnostic(summary("iscsi-tgt, user space", RUNS, late, writes));
    assert.equal(late, 0);
  });
});
