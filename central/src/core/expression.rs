//! Recipient expressions as callers write them.

use carillon_expr::{Expression, Limits, Schema};

use super::problem::{self, Problem};

/// # Errors
/// All that is wrong with the text; or that it is volatile: what such an expression describes changes with the clock
/// alone, and edges look at what is written alone.
pub fn read(text: &str, schema: &dyn Schema) -> Result<Expression, Problem> {
    let expression = Expression::parse(text, schema, &Limits::default())
        .map_err(|errors| problem::bad_expression(text, &errors))?;
    if expression.is_volatile() {
        return Err(problem::problem(
            422,
            "volatile-expression",
            "The expression looks at the clock",
            "who is a recipient would change with the clock or with `last_seen`, which messages do not follow",
        ));
    }
    Ok(expression)
}
