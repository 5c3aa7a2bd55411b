/**
 * A hundred volumes that eight callers of one host attach and detach in a random order: no device ever shows the serial
 * number or the content of another volume. `LIBSTORAGE_MANY_SEED` repeats an order.
 */
import assert from "node:assert/strict";
import { after, before, describe } from "node:test";
import type { TestContext } from "node:test";
import { E2eHosts, SERVICE } from "./e2e-hosts.js";
import { chain } from "./e2e-steps.js";
import type { ManyOptions, ManyReport } from "./guest/many-callers.js";

const SEED = Number(process.env["LIBSTORAGE_MANY_SEED"] ?? (Date.now() % 1_000_000) + 1);
/** How long attaches begin; the machines do as many as they can. */
const LIMIT_MS = 900_000;

let e2e: E2eHosts;

async function many(test: TestContext): Promise<void> {
  const options: ManyOptions = {
    service: SERVICE,
    volumes: 100,
    callers: 8,
    seed: SEED,
    limitMs: LIMIT_MS,
    operations: 300,
  };
  test.diagnostic(`LIBSTORAGE_MANY_SEED=${SEED}`);
  const program = "/project/test/dist/lab/guest/many-callers.js";
  const callers = e2e.hosts.b.start(
    `exec node --enable-source-maps ${program} '${JSON.stringify(options)}'`,
  );
  callers.onLine((line) => test.diagnostic(line));
  const { code, stdout, stderr } = await callers.ended;
  assert.equal(code, 0, stderr);
  const [, text = "{}"] = /^(\{"report":.*)$/m.exec(stdout) ?? [];
  const { report } = JSON.parse(text) as { report: ManyReport };
  assert.deepEqual(report.wrong, []);
  assert.equal(report.volumes, 100);
  assert.equal(report.attaches, report.detaches);
  assert.equal(report.touched, 100, "each has been attached at least once");
}

describe("many volumes, many callers", { timeout: 2_100_000 }, () => {
  const step = chain();
  before(async () => {
    e2e = await E2eHosts.start();
  });
  after(async () => e2e?.hosts.remove());

  step("no device shows another volume's serial number or content", many);
  step("leaves nothing, and what is not ours as it was", async () => {
    await e2e.nothingLeft();
    await e2e.foreign.isUntouched();
    assert.equal(await e2e.server.stop(), 0);
  });
});
