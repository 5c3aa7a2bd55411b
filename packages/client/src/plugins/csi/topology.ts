/** Where volumes can be reached, and whether that is where they are wanted. */
import type { CreateVolumeRequest, TextMap, Topology } from "./messages.js";
import { CsiError, invalid } from "./status.js";

/** Whether a place lies in a segment: keys without case, as the specification has them. */
export function isWithin(place: TextMap, segment: TextMap): boolean {
  const lower = new Map(Object.entries(place).map(([key, value]) => [key.toLowerCase(), value]));
  return Object.entries(segment).every(([key, value]) => lower.get(key.toLowerCase()) === value);
}

/**
 * @param own where this service's volumes can be reached; empty: anywhere
 * @throws {CsiError} RESOURCE_EXHAUSTED when that is none of the wanted places
 */
export function checkRequirements(
  own: TextMap,
  wanted: CreateVolumeRequest["accessibilityRequirements"],
): void {
  if (wanted === null) return;
  const { requisite, preferred } = wanted;
  if (requisite.length === 0 && preferred.length === 0)
    throw invalid("accessibility_requirements name neither requisite nor preferred topologies");
  if (Object.keys(own).length === 0 || requisite.length === 0) return;
  if (requisite.some(({ segments }) => isWithin(own, segments))) return;
  throw new CsiError(
    "RESOURCE_EXHAUSTED",
    `volumes of this service can be reached in ${textOf(own)} only, which is none of the requisite topologies`,
  );
}

export function topologyOf(own: TextMap): Topology[] {
  return Object.keys(own).length === 0 ? [] : [{ segments: own }];
}

function textOf(segments: TextMap): string {
  return Object.entries(segments)
    .map(([key, value]) => `${key}=${value}`)
    .join(",");
}
