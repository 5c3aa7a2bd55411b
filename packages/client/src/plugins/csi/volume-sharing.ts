/** Whether several nodes may have a volume at once: decided when it is made, by what it is made for. */
import type { Volume } from "@libstorage/model";
import { needsManyNodes } from "./capabilities.js";
import type { CheckedCapability } from "./capabilities.js";

/** The field by which the service lets several instances have a volume; without it, its own setting counts. */
export const SHAREABLE = "shareable";

/** @returns why the capabilities are more than the volume was made for, or undefined */
export function beyondSharing(
  { id, fields }: Volume,
  capabilities: readonly CheckedCapability[],
): string | undefined {
  const own = fields?.[SHAREABLE];
  if (own === undefined || own === "" || own === "true" || !needsManyNodes(capabilities))
    return undefined;
  return `volume ${id} was made for one node at a time, and the service lets no second one in: make one with the access mode that is wanted, with this one as its source`;
}
