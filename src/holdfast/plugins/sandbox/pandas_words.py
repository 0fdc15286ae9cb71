"""The words that a pandas program may use. Nothing here reads, writes, loads or evaluates."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


BUILTINS = _words(
    """
    abs all any bool dict enumerate float int len list max min range round set sorted str sum
    tuple zip
    """
)
PANDAS = _words(
    """
    DataFrame NA NaT Series Timedelta Timestamp concat crosstab cut isna isnull merge notna
    notnull pivot_table qcut to_datetime to_numeric unique
    """
)
NUMPY = _words(
    """
    abs array ceil exp floor log max maximum mean median min minimum nan percentile round sqrt
    std sum unique var where
    """
)
# What calls its argument, which may be a text, and where that argument stands: as a method, and as
# a function of pandas.
BY_NAME: dict[str, tuple[int, int]] = {
    "agg": (0, 0),
    "aggregate": (0, 0),
    "apply": (0, 0),
    "transform": (0, 0),
    "pivot_table": (3, 4),
    "crosstab": (5, 5),
}
CALLED = ("func", "aggfunc")
# What an axis is called; no method is.
AXES = ("index", "columns", "rows")
# Their keywords that are columns of the outcome: ``agg(total=('points', 'sum'))``.
NAMING = ("agg", "aggregate")
# What may be called by a name in text.
PLAIN = frozenset(
    _words(
        """
        abs all any bfill count cummax cummin cumprod cumsum diff ffill first idxmax idxmin last
        max mean median min mode nunique pct_change prod quantile rank round shift size sqrt std
        sum unique value_counts var exp log floor ceil len str int float
        """
    )
)
# Keywords of no call: they choose what compiles or evaluates.
KEYWORDS_REFUSED = frozenset(
    _words(
        """
        engine engine_kwargs expr parser resolvers local_dict global_dict target
        """
    )
)
ATTRIBUTES = frozenset({*PANDAS, *NUMPY, *BY_NAME}).union(
    _words(
        """
        T abs map add all any argmax argmin astype at between bfill capitalize clip columns
        contains copy corr count cummax cummin cumsum date day days dayofweek describe diff div
        drop drop_duplicates dropna dt dtype dtypes duplicated empty endswith eq explode extract
        ffill fillna find first ge get get_group groupby groups gt head hour iat idxmax idxmin
        iloc index isdigit isin isnumeric items join keys last le len loc lower lstrip lt mask
        match max mean median melt min minute mode month month_name mul name ne nlargest
        nsmallest nth nunique pct_change pivot pow prod quantile query rank reindex rename
        replace reset_index rolling round rstrip sample second set_index shape shift size
        sort_index sort_values split squeeze stack startswith std str strip sub sum tail title
        to_dict to_frame to_list tolist unique unstack upper value_counts values var weekday
        where xs year
        """
    )
)
