/** What `libstorage-server check` tells of an iSCSI exporter. */
import type { Ability } from "../../core/driver.js";
import type { ChapMode } from "./chap.js";
import { formatPortal } from "./portals.js";
import type { Portal } from "./portals.js";

export function portalAbility(portals: () => readonly Portal[]): Ability {
  const name = "iSCSI portals";
  try {
    return { name, available: true, detail: portals().map(formatPortal).join(", ") };
  } catch (error) {
    return { name, available: false, detail: error instanceof Error ? error.message : "" };
  }
}

export function chapAbility(mode: ChapMode): Ability {
  const detail = mode === "none" ? "none: the names of initiators are all there is" : mode;
  return { name: "iSCSI passwords (CHAP)", available: mode !== "none", detail };
}
