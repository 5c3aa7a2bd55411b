// The report of `npm test`, and after it one line that counts the tests which hold no others.
import base from "./test-reporter.mjs";

const OUTCOME = { "test:pass": "passed", "test:fail": "failed" };

export default async function* report(source) {
  const counts = { passed: 0, failed: 0, skipped: 0 };
  const hasParts = [];
  async function* counted() {
    for await (const event of source) {
      const { type, data } = event;
      if (type === "test:start") {
        hasParts[data.nesting] = false;
        if (data.nesting > 0) hasParts[data.nesting - 1] = true;
      } else if (type in OUTCOME) {
        // A test that fails although its parts did not, such as in a hook, counts too.
        const isOwn = type === "test:fail" && !/subtests? failed/.test(data.details.error.message);
        const isSkipped = data.skip !== undefined && data.skip !== false;
        if (hasParts[data.nesting] !== true || isOwn)
          counts[isSkipped ? "skipped" : OUTCOME[type]] += 1;
      }
      yield event;
    }
  }
  yield* base(counted());
  yield `\n${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped\n`;
}
