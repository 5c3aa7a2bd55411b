/** What the kernel tells of the session of one initiator. */

export interface SessionInfo {
  readonly address?: string;
  /** In small letters, such as `logged in`, `failed`. */
  readonly state: string;
}

/** Reads the `info` attribute of an initiator's entry. Undefined when there is no session. */
export function parseSessionInfo(text: string): SessionInfo | undefined {
  const state = /^Session State: TARG_SESS_(?:STATE_)?(\w+)/m.exec(text)?.[1];
  if (state === undefined) return undefined;
  const address = /^\s*Address (\S+) \w+\s/m.exec(text)?.[1];
  return {
    ...(address !== undefined && { address: address.replaceAll(/^\[|\]$/g, "") }),
    state: state.replaceAll("_", " ").toLowerCase(),
  };
}
