/** Shapes of the library's arguments, checked at the door: what is wrong is said in words, before anything looks inside. */

export function needObject(what: string, value: unknown): asserts value is object {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new TypeError(`${what} must be an object, not ${nameOf(value)}`)
}

export function needArray(what: string, value: unknown): asserts value is readonly unknown[] {
  if (!Array.isArray(value)) throw new TypeError(`${what} must be an array, not ${nameOf(value)}`)
}

/** Each member an object. */
export function needObjects(what: string, value: unknown): asserts value is readonly object[] {
  needArray(what, value)
  value.forEach((member, index) => {
    needObject(`${what}[${index}]`, member)
  })
}

/** Byte ranges as pairs. */
export function needExtents(what: string, value: unknown): void {
  needArray(what, value)
  value.forEach((extent, index) => {
    if (!Array.isArray(extent) || extent.length !== 2 || !extent.every((part) => typeof part === 'number'))
      throw new TypeError(`${what}[${index}] must be [offset, length]`)
  })
}

const NAMES = ['disk', 'bitmap', 'backup', 'checkpoint', 'group'] as const
const FLAGS = ['forceCycle', 'quiet', 'persistent', 'disabled'] as const
const NUMBERS = ['size', 'slice', 'generation', 'retention', 'granularity', 'writes'] as const

/** What every command has in common: names are text, numbers numbers, flags flags. Values are its own family's to judge. */
export function needCommand(command: unknown): void {
  needObject('a command', command)
  const given = command as Readonly<Record<string, unknown>>
  const need = (keys: readonly string[], type: string, noun: string) => {
    for (const key of keys) {
      const value = given[key]
      if (value !== undefined && typeof value !== type)
        throw new TypeError(`${key} must be ${noun}, not ${nameOf(value)}`)
    }
  }
  need(['type'], 'string', 'the name of a command')
  need(NAMES, 'string', 'a string')
  need(NUMBERS, 'number', 'a number')
  need(FLAGS, 'boolean', 'true or false')
  if ('bitmaps' in given) needObjects('bitmaps', given.bitmaps)
  if ('sources' in given) needObjects('sources', given.sources)
  if ('of' in given) needArray('of', given.of)
  if (given.extents !== undefined) needExtents('extents', given.extents)
  if (given.uncopied !== undefined) needExtents('uncopied', given.uncopied)
  for (const refs of [given.bitmaps, given.sources])
    for (const ref of (refs ?? []) as object[]) needCommand(ref)
}

function nameOf(value: unknown): string {
  if (value === null) return 'null'
  return Array.isArray(value) ? 'an array' : typeof value
}
