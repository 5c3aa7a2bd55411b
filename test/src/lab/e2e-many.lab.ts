/**
 * A hundred volumes that eight callers of one host attach and detach in a random order: no device ever shows the serial
 * number or the content of another volume.
 */
import assert from "node:assert/strict";
import { after, before, describe } from "node:test";
import { E2eHosts } from "./e2e-hosts.js";
import { chain } from "./e2e-steps.js";
import { runMany } from "./many-callers.js";

/** How long attaches begin; the machines do as many as they can. */
const LIMIT_MS = 900_000;

let e2e: E2eHosts;

describe("many volumes, many callers", { timeout: 2_100_000 }, () => {
  const step = chain();
  before(async () => {
    e2e = await E2eHosts.start();
  });
  after(async () => e2e?.hosts.remove());

  step("no device shows another volume's serial number or content", (test) =>
    runMany(e2e, test, { volumes: 100, callers: 8, limitMs: LIMIT_MS, operations: 300 }),
  );
  step("leaves nothing, and what is not ours as it was", async () => {
    await e2e.nothingLeft();
    await e2e.foreign.isUntouched();
    assert.equal(await e2e.server.stop(), 0);
  });
});
