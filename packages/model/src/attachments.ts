/** The attachments mask of lists and inspections, section 7 of the contract. */
export const ATTACHMENTS = {
  requested: 1,
  mine: 2,
  devices: 4,
  attached: 8,
  unattached: 16,
} as const;

/** What `attachments=true`, or the bare parameter, stands for. */
export const ATTACHMENTS_TRUE = 15;

export const ATTACHMENT_STATE = { unknown: 1, attached: 2, available: 3, unavailable: 4 } as const;

/** Whether a mask can only be answered for a known instance. */
export function needsInstanceID(mask: number): boolean {
  return (mask & (ATTACHMENTS.mine | ATTACHMENTS.devices)) !== 0;
}

/** Whether a volume in `state` belongs into the answer for `mask`. */
export function isWanted(mask: number, state: number): boolean {
  const mine = (mask & ATTACHMENTS.mine) !== 0;
  const attached = (mask & ATTACHMENTS.attached) !== 0;
  const unattached = (mask & ATTACHMENTS.unattached) !== 0;
  const isFree = state === ATTACHMENT_STATE.available;
  if (isFree && attached && !unattached) return false;
  if (!isFree && unattached && !attached) return false;
  if (mine && attached) return state === ATTACHMENT_STATE.attached || (isFree && unattached);
  return true;
}
