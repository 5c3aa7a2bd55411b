/** A reporter for node:test that prints only the ends of tests, for `replay`. */
import type { TestEvent } from "node:test/reporters";
import { formatTestEnd } from "./events.js";

interface Failure {
  readonly message: string;
  readonly stack?: string;
  readonly cause?: unknown;
}

/** Node wraps what a test threw. */
function textOf({ cause, message, stack }: Failure): string {
  if (cause instanceof Error) return cause.stack ?? cause.message;
  return typeof cause === "string" ? cause : (stack ?? message);
}

export default async function* report(source: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  const path: string[] = [];
  const hasParts: boolean[] = [];
  for await (const { type, data } of source) {
    if (type === "test:start") {
      path.length = data.nesting;
      path.push(data.name);
      hasParts[data.nesting] = false;
      if (data.nesting > 0) hasParts[data.nesting - 1] = true;
    } else if (type === "test:pass" || type === "test:fail") {
      const isPart = hasParts[data.nesting] !== true;
      const failure = type === "test:fail" ? data.details.error : undefined;
      // A suite fails with its parts, which are told; one that fails by itself, such as in a hook, is told too.
      const isOwn = failure !== undefined && !/subtests? failed/.test(failure.message);
      if (!isPart && !isOwn) continue;
      const skip = data.skip === undefined || data.skip === false ? undefined : String(data.skip);
      const text = failure === undefined ? skip : textOf(failure);
      yield formatTestEnd({
        path: [...path.slice(0, data.nesting), data.name],
        outcome: failure !== undefined ? "failed" : skip === undefined ? "passed" : "skipped",
        ms: Math.round(data.details.duration_ms),
        ...(text !== undefined && { text }),
      });
    } else if (type === "test:stdout" || type === "test:stderr") yield data.message;
  }
}
