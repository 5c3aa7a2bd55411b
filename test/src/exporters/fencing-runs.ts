/** How often the fencing tests preempt a writer, and what they say at the end. */
const GIVEN = Number(process.env["LIBSTORAGE_FENCING_RUNS"] ?? "0");

/** @param few for an ordinary run of the tests */
export function fencingRuns(few: number): number {
  return Number.isInteger(GIVEN) && GIVEN > 0 ? GIVEN : few;
}

/** The line that a person looks for. */
export function summary(exporter: string, runs: number, late: number, writes: number): string {
  return `fencing ${exporter}: ${runs} preemptions of a writer, ${writes} writes before them, ${late} late writes`;
}
