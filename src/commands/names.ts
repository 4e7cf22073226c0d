/** One rule for every name there is (R4): disks, bitmaps, checkpoints, backups, groups, command ids. */
import { CheckpointError } from '../errors.ts'
import { limits } from '../limits.ts'

export type Named =
  | 'disk'
  | 'bitmap'
  | 'checkpoint'
  | 'backup'
  | 'group'
  | 'command id'
  | 'correlation id'
  | 'causation id'
  | 'actor'
  | 'cursor'
  | 'projection'

/**
 * Accepts 1 to 1023 bytes of UTF-8 without lone surrogates, and any other characters.
 * @throws TypeError when it is no string; CheckpointError NAME_EMPTY, NAME_TOO_LONG, NAME_INVALID.
 */
export function checkName(what: Named, name: string): void {
  if (typeof name !== 'string')
    throw new TypeError(`the name of ${aOrAn(what)} must be a string, not ${typeof name}`)
  if (name.length === 0) {
    throw new CheckpointError(
      'NAME_EMPTY',
      `the name of ${aOrAn(what)} cannot be empty; give 1 to ${limits.nameBytesMax} bytes`,
      {
        what,
        qemu: 'Bitmap name cannot be empty',
      },
    )
  }
  const bytes = Buffer.byteLength(name, 'utf8')
  if (bytes > limits.nameBytesMax) {
    throw new CheckpointError(
      'NAME_TOO_LONG',
      `the name of ${aOrAn(what)} has ${bytes} bytes of UTF-8, and ${limits.nameBytesMax} is the most; give a shorter one`,
      { what, bytes, qemu: `Bitmap name too long: ${name}` },
    )
  }
  if (/\p{Surrogate}/u.test(name)) {
    throw new CheckpointError(
      'NAME_INVALID',
      `the name of ${aOrAn(what)} holds half a character (a lone surrogate); give well-formed text`,
      { what },
    )
  }
}

/** For handles, which are names: only that it is text. Whether it names anything is for their calls to find. */
export function needName(what: Named, name: unknown): asserts name is string {
  if (typeof name !== 'string')
    throw new TypeError(
      `the name of ${aOrAn(what)} must be a string, not ${name === null ? 'null' : typeof name}`,
    )
}

function aOrAn(what: Named): string {
  return what === 'actor' ? 'an actor' : `a ${what}`
}
