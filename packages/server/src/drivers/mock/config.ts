import * as v from "valibot";

/** The keys of a mock service. */
export const MockConfig = v.strictObject({
  /** Whether it starts with the reference's three volumes and three snapshots, or empty. */
  seed: v.optional(v.boolean(), true),
  /** How long a copy or a snapshot takes, to show progress and cancelling. Milliseconds. */
  delayMs: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(3_600_000)), 0),
});
export type MockConfig = v.InferOutput<typeof MockConfig>;
