/**
 * The two ways in which stored bytes can be refused. Callers above (src/log) turn them into coded errors with the
 * position they know; here, nothing is known but the bytes.
 */

/** `checksum`: the CRC differs. `length`: bytes missing or left over. `format`: checksum right, content impossible. */
export type DamageProblem = 'checksum' | 'length' | 'format'

export class RecordDamage extends Error {
  override readonly name = 'RecordDamage'

  constructor(
    readonly problem: DamageProblem,
    message: string,
  ) {
    super(message)
  }
}

/** Undamaged, but written by a newer version of slicelog (R34). */
export class RecordTooNew extends Error {
  override readonly name = 'RecordTooNew'

  constructor(
    /** `layout`, `record`, `pack` or an event's type. */
    readonly what: string,
    readonly version: number,
    readonly newest: number,
  ) {
    super(`${what} has version ${version}; the newest one known here is ${newest}`)
  }
}
