/** Callers of one host that attach and detach volumes in a random order. `LIBSTORAGE_MANY_SEED` repeats an order. */
import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import { SERVICE } from "./e2e-hosts.js";
import type { E2eHosts } from "./e2e-hosts.js";
import type { ManyOptions, ManyReport } from "./guest/many-callers.js";

const SEED = Number(process.env["LIBSTORAGE_MANY_SEED"] ?? (Date.now() % 1_000_000) + 1);
const PROGRAM = "/project/test/dist/lab/guest/many-callers.js";

/** @throws when a device has shown another volume's serial number or content, or a volume was never attached */
export async function runMany(
  e2e: E2eHosts,
  test: TestContext,
  size: Omit<ManyOptions, "service" | "seed">,
): Promise<void> {
  const options: ManyOptions = { service: SERVICE, seed: SEED, ...size };
  test.diagnostic(`LIBSTORAGE_MANY_SEED=${SEED}`);
  const callers = e2e.hosts.b.start(
    `exec node --enable-source-maps ${PROGRAM} '${JSON.stringify(options)}'`,
  );
  callers.onLine((line) => test.diagnostic(line));
  const { code, stdout, stderr } = await callers.ended;
  assert.equal(code, 0, stderr);
  const [, text = "{}"] = /^(\{"report":.*)$/m.exec(stdout) ?? [];
  const { report } = JSON.parse(text) as { report: ManyReport };
  assert.deepEqual(report.wrong, []);
  assert.equal(report.volumes, size.volumes);
  assert.equal(report.attaches, report.detaches);
  assert.equal(report.touched, size.volumes, "each has been attached at least once");
}
