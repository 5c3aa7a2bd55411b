/** Calls of a host that something is done to in their middle. */
import assert from "node:assert/strict";
import { it } from "node:test";
import type { TestContext } from "node:test";
import { until } from "./limit.js";
import type { Machine } from "./machine.js";

/**
 * Whether a call succeeded in spite of what was done to it.
 * @throws when it failed with an error that is none of a network, or of a server or host that is gone
 */
export async function succeeded(call: Promise<unknown>): Promise<boolean> {
  try {
    await call;
    return true;
  } catch (error) {
    const { code = "", message } = error as Error & { code?: string };
    const isExpected = /^(?:deadline-exceeded|unavailable|failed-precondition)$/.test(code);
    assert.ok(isExpected || /ended with|is down/.test(message), `${code}: ${message}`);
    return false;
  }
}

/** A removal whose answer was lost says, when it is asked for again, that there is nothing. */
export async function goes(remove: () => Promise<unknown>): Promise<void> {
  await remove().catch((error: Error & { code?: string }) => {
    if (error.code !== "not-found") throw error;
  });
}

/**
 * Somebody who writes to a file of a machine, and to its disk each time. Begun when this answers.
 * @returns ends it; throws when a write failed, or is not in the file
 */
export async function startWriter(machine: Machine, file: string): Promise<() => Promise<void>> {
  const writer = machine.start(
    `i=0; until [ -e /run/enough ]; do i=$((i+1)); echo $i >> ${file} && sync ${file} || exit 1; sleep 0.2; done; echo $i`,
  );
  const isBegun = async (): Promise<boolean> =>
    (await machine.attempt(`test -s ${file}`)).code === 0;
  await until("somebody writes", isBegun);
  return async () => {
    await machine.run("touch /run/enough");
    const { code, stdout } = await writer.ended;
    assert.equal(code, 0, "the writer saw nothing of it");
    assert.equal(await machine.run(`rm /run/enough; wc -l < ${file}`), stdout.trim());
  };
}

/** @returns declares tests that build on each other: after one that failed, the others say so and do nothing */
export function chain(): (title: string, act: (test: TestContext) => Promise<void>) => void {
  let failed: string | undefined;
  return (title, act) => {
    it(title, async (test) => {
      if (failed !== undefined) return test.skip(`"${failed}" has failed`);
      failed = title;
      await act(test);
      failed = undefined;
    });
  };
}
