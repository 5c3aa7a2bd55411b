/**
 * The driver contract: what the core may count on. It runs against a driver directly. Cases choose
 * themselves by what the driver offers; each ends by proving that nothing is left.
 */
import { after, before, describe, it } from "node:test";
import { ATTACH_CASES } from "./conformance/attach.js";
import { COPY_CASES } from "./conformance/copies.js";
import { DATA_CASES } from "./conformance/data.js";
import { FAULT_CASES } from "./conformance/faults.js";
import { Fixture } from "./conformance/fixture.js";
import type { Case, Harness } from "./conformance/fixture.js";
import { REVERT_CASES } from "./conformance/reverts.js";
import { SNAPSHOT_CASES } from "./conformance/snapshots.js";
import { VOLUME_CASES } from "./conformance/volumes.js";

const CONTRACT: readonly Case[] = [
  ...VOLUME_CASES,
  ...ATTACH_CASES,
  ...COPY_CASES,
  ...SNAPSHOT_CASES,
  ...REVERT_CASES,
  ...DATA_CASES,
];

/** @param more cases that only this driver has, run the same way */
export function testDriver(name: string, harness: Harness, more: readonly Case[] = []): void {
  describe(`driver contract: ${name}`, { skip: harness.skip }, () => {
    before(() => harness.before?.());
    after(() => harness.after?.());
    const faults = harness.hasDoors === true ? FAULT_CASES : [];
    const { isWanted = () => true } = harness;
    for (const one of [...CONTRACT, ...faults, ...more].filter(({ title }) => isWanted(title))) {
      it(one.title, async (t) => {
        const differs = harness.differs?.[one.title];
        if (differs !== undefined) return t.skip(differs);
        const fixture = await Fixture.open(harness);
        try {
          const reason = one.unless?.(fixture.driver, harness);
          if (reason !== undefined) return t.skip(reason);
          await one.run(fixture);
          await fixture.empty();
        } finally {
          await fixture.driver.close();
          await fixture.place.close();
        }
        return undefined;
      });
    }
  });
}
