import { closest, distance } from "fastest-levenshtein";

/** The known name that was probably meant, or undefined when none is near. */
export function nearest(name: string, known: readonly string[]): string | undefined {
  if (known.length === 0 || name.length > 64) return undefined;
  const lower = name.toLowerCase();
  const exact = known.find((candidate) => candidate.toLowerCase() === lower);
  if (exact !== undefined) return exact;
  const best = closest(lower, [...known]);
  return distance(lower, best.toLowerCase()) <= Math.max(2, best.length / 3) ? best : undefined;
}
